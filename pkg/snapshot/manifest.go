// Package snapshot saves what the platform's database and broker hold, at one cut, and brings it back.
//
// Folder (store.go) is where snapshots lie, on the host. database.go reads and writes all tables, broker.go the dead letters;
// cut.go brings the platform to rest, so that there is nothing else to save.
package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"platformctl/pkg/fault"
)

// format is that of the files that are written. Those of the formats before it, from the first on, are read too.
const (
	format = 3
	plain  = 1 // its rows are not packed
)

// Manifest says what a snapshot holds. It lies beside the data, as manifest.json.
type Manifest struct {
	Format    int       `json:"format"`
	Name      string    `json:"name"`
	Taken     time.Time `json:"taken"`
	Automatic string    `json:"automatic,omitempty"` // what it was taken for without being asked for: "down"
	Program   string    `json:"platformctl"`         // version of what took it
	Server    string    `json:"postgresql"`          // version of the database server
	Schema    int64     `json:"schema"`              // number of the newest migration
	Origin    string    `json:"origin"`              // tells one life of a database from another

	Orders      int64            `json:"orders"`
	Pending     int64            `json:"pending"` // of the orders, those without an end: their events are dead letters, or were never sent
	DeadLetters int              `json:"deadLetters"`
	Tables      []Table          `json:"tables"`    // in the order of the data
	Letters     Part             `json:"letters"`   // as broker.go has them
	Sequences   map[string]int64 `json:"sequences"` // the last value given out, of those that have given out any

	Digest string `json:"digest"` // of the manifest, without this
}

// Table is a table's rows, as COPY writes them in binary, packed by gzip from format 2 on.
type Table struct {
	Name    string   `json:"name"`
	Columns []Column `json:"columns"`
	Rows    int64    `json:"rows"`
	Part
}

// Column is one of a table.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Part is a part of the data.
type Part struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Bytes is the size of the data.
func (m Manifest) Bytes() int64 {
	n := m.Letters.Bytes
	for _, t := range m.Tables {
		n += t.Bytes
	}
	return n
}

// digest is what Digest should be.
func (m Manifest) digest() (string, error) {
	m.Digest = ""
	raw, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

// shape tells whether two sets of tables have the same tables and columns. It names the first difference; "" is none.
func shape(theirs, ours []Table) string {
	have := map[string]string{}
	for _, t := range ours {
		have[t.Name] = "a table"
		for _, c := range t.Columns {
			have[t.Name+"."+c.Name] = c.Type
		}
	}
	for _, t := range theirs {
		if have[t.Name] == "" {
			return fmt.Sprintf("the database has no table %s", t.Name)
		}
		delete(have, t.Name)
		for _, c := range t.Columns {
			column := t.Name + "." + c.Name
			if have[column] != c.Type {
				return fmt.Sprintf("the database has no column %s of type %s", column, c.Type)
			}
			delete(have, column)
		}
	}
	least := ""
	for name := range have {
		if least == "" || name < least {
			least = name
		}
	}
	if least != "" {
		return fmt.Sprintf("the snapshot has no %s", least)
	}
	return ""
}

var names = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CheckName is a usage fault for what is no name of a snapshot.
func CheckName(name string) error {
	if names.MatchString(name) {
		return nil
	}
	return fault.Usage("platformctl snapshot save before-the-demo",
		"%q is no name for a snapshot: up to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last", name)
}
