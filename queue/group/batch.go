package group

import (
	"encoding/binary"
	"fmt"
)

// An entry's data: version (1 byte), origin (8, the run of the proposing process), sequence (8, within the origin), number
// of commands (uvarint, 1 to MaxCommands), then for each its length (uvarint) and bytes.
const (
	batchVersion     = 1
	batchHeaderBytes = 17
)

// batch is the content of one entry. Origin and seq let the proposer find who waits for it.
type batch struct {
	origin, seq uint64
	commands    [][]byte
}

func (b batch) encode() []byte {
	size := batchHeaderBytes + binary.MaxVarintLen16
	for _, c := range b.commands {
		size += binary.MaxVarintLen32 + len(c)
	}
	out := make([]byte, 0, size)
	out = append(out, batchVersion)
	out = binary.BigEndian.AppendUint64(out, b.origin)
	out = binary.BigEndian.AppendUint64(out, b.seq)
	out = binary.AppendUvarint(out, uint64(len(b.commands)))
	for _, c := range b.commands {
		out = binary.AppendUvarint(out, uint64(len(c)))
		out = append(out, c...)
	}
	return out
}

// decodeBatch reads an entry's data; the commands share its memory.
func decodeBatch(data []byte) (batch, error) {
	if len(data) < batchHeaderBytes || data[0] != batchVersion {
		return batch{}, fmt.Errorf("%w: no batch of version %d", ErrBadEntry, batchVersion)
	}
	b := batch{origin: binary.BigEndian.Uint64(data[1:]), seq: binary.BigEndian.Uint64(data[9:])}
	data = data[batchHeaderBytes:]
	count, n := binary.Uvarint(data)
	if n <= 0 || count == 0 || count > MaxCommands {
		return batch{}, fmt.Errorf("%w: number of commands", ErrBadEntry)
	}
	data = data[n:]
	b.commands = make([][]byte, count)
	for i := range b.commands {
		size, n := binary.Uvarint(data)
		if n <= 0 || size > uint64(len(data)-n) {
			return batch{}, fmt.Errorf("%w: length of command %d", ErrBadEntry, i)
		}
		b.commands[i] = data[n : n+int(size) : n+int(size)]
		data = data[n+int(size):]
	}
	if len(data) > 0 {
		return batch{}, fmt.Errorf("%w: %d bytes too many", ErrBadEntry, len(data))
	}
	return b, nil
}
