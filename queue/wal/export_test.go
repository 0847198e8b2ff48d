package wal

// AwaitPreparation returns once no preparation of a segment is at work.
func (l *Log) AwaitPreparation() {
	if l.next != nil {
		err := <-l.next.done
		l.next.done <- err
	}
}
