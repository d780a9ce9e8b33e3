package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Journal has, in a file, the fault that is being made and not healed yet. Its holder has it locked; the kernel drops the lock
// with the holder, however that one ends.
type Journal struct{ file *os.File }

// ErrAtWork says that another chaos is at work on the cluster.
var ErrAtWork = errors.New("another chaos is at work on this cluster")

// OpenJournal opens the journal at path and locks it. What a killed chaos left in it is told: whoever has the journal heals it.
func OpenJournal(path string) (j *Journal, left *Fault, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("open the journal of faults: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the journal of faults: %w", err)
	}
	fail := func(err error) (*Journal, *Fault, error) {
		return nil, nil, errors.Join(err, file.Close())
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fail(ErrAtWork)
	} else if err != nil {
		return fail(fmt.Errorf("lock the journal of faults: %w", err))
	}
	raw, err := io.ReadAll(file)
	if err != nil {
		return fail(fmt.Errorf("read the journal of faults: %w", err))
	}
	if len(raw) > 0 {
		left = &Fault{}
		if json.Unmarshal(raw, left) != nil {
			left = &Fault{} // cut off while it was written: the fault had not begun
		}
	}
	return &Journal{file}, left, nil
}

// begin writes that a fault is about to be made; when it returns that is on the disk.
func (j *Journal) begin(f Fault) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := errors.Join(j.file.Truncate(0), at(j.file, raw), j.file.Sync()); err != nil {
		return fmt.Errorf("write the journal of faults: %w", err)
	}
	return nil
}

func at(file *os.File, raw []byte) error {
	_, err := file.WriteAt(raw, 0)
	return err
}

// Healed forgets the fault.
func (j *Journal) Healed() error {
	if err := errors.Join(j.file.Truncate(0), j.file.Sync()); err != nil {
		return fmt.Errorf("write the journal of faults: %w", err)
	}
	return nil
}

// Close gives the journal up.
func (j *Journal) Close() error { return j.file.Close() }

// HealLeft heals what a killed chaos left at the cluster whose journal is at path. Where nothing was left, or a chaos is at
// work, it does nothing. say is told before it begins.
func HealLeft(ctx context.Context, path string, hands Hands, say func(Fault)) (err error) {
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	j, left, err := OpenJournal(path)
	if errors.Is(err, ErrAtWork) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if left.Kind != "" {
		say(*left)
		if err := hands.heal(ctx, *left); err != nil {
			return fmt.Errorf("heal what a killed chaos left, %s: %w", *left, err)
		}
	}
	return j.Healed()
}
