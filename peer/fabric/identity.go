package fabric

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// keyBlock is the PEM type of the key file: PKCS #8 (RFC 5958), which openssl reads.
const keyBlock = "PRIVATE KEY"

// ErrKeyFile says that a key file is there but must not or cannot be used.
var ErrKeyFile = errors.New("unusable key file")

// Identity reads this node's key from the file path, or makes the key and the file (mode 0600, durable on return)
// where there is none; created tells which. A file that group or others can read is refused with an error wrapping
// ErrKeyFile: the key may be known to somebody else by now, so the user has to decide.
func Identity(path string) (key ed25519.PrivateKey, created bool, err error) {
	key, err = readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	_, key, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, false, fmt.Errorf("fabric: make a key: %w", err)
	}
	if err := writeKey(path, key); err != nil {
		return nil, false, err
	}
	return key, true, nil
}

func readKey(path string) (ed25519.PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("fabric: read key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("fabric: read key: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("fabric: %w %s: not a regular file", ErrKeyFile, path)
	}
	if open := st.Mode().Perm() & 0o077; open != 0 {
		return nil, fmt.Errorf("fabric: %w %s: mode %04o lets others read it\nhint: if nobody else has read it, chmod 600 %s; else remove it and join again as a new node",
			ErrKeyFile, path, st.Mode().Perm(), path)
	}
	text := make([]byte, 4096) // a PKCS #8 Ed25519 key is 119 bytes as PEM
	n, err := f.Read(text)
	if err != nil {
		return nil, fmt.Errorf("fabric: %w %s: %w", ErrKeyFile, path, err)
	}
	return parseKey(path, text[:n])
}

func parseKey(path string, text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("fabric: %w %s: not a PEM %q", ErrKeyFile, path, keyBlock)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("fabric: %w %s: %w", ErrKeyFile, path, err)
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("fabric: %w %s: holds a %T, not an Ed25519 key", ErrKeyFile, path, any)
	}
	return key, nil
}

// writeKey puts the key at path in one step that a crash cannot halve, and never over a file that is there.
func writeKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("fabric: encode key: %w", err)
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".key-*") // CreateTemp makes it 0600
	if err != nil {
		return fmt.Errorf("fabric: write key: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}))
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(tmp.Name(), path) // fails if another start made one first
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("fabric: write key: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
