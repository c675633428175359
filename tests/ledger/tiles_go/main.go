// Reads a ledger's tiles as a transparency log's client does: golang.org/x/mod/sumdb's note and tlog, and nothing of ours.
//
//	main DIRECTORY VKEY
//
// Every hash comes through tlog.TileHashReader, which authenticates the tiles against the signed root; every entry's
// record hash is compared with it, and some are proven. Prints how many entries there were.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

type tiles struct{ directory string }

func (t tiles) Height() int { return height }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, one := range wanted {
		// tlog's own paths name the height, tlog-tiles' do not.
		path := strings.Replace(one.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.directory, path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func bundle(directory string, index, size int64) [][]byte {
	width := size - 256*index
	if width > 256 {
		width = 256
	}
	tile := tlog.Tile{H: height, L: 0, N: index, W: int(width)}
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/0/", height), "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(directory, path))
	check(err)
	var entries [][]byte
	for len(data) > 0 {
		length := int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:2+length])
		data = data[2+length:]
	}
	return entries
}

func main() {
	directory, vkey := os.Args[1], os.Args[2]
	verifier, err := note.NewVerifier(vkey)
	check(err)
	raw, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	check(err)
	signed, err := note.Open(raw, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(signed.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)
	tree := tlog.Tree{N: size}
	copy(tree.Hash[:], root)
	reader := tlog.TileHashReader(tree, tiles{directory})
	var seq int64
	for index := int64(0); 256*index < size; index++ {
		for _, entry := range bundle(directory, index, size) {
			stored, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, seq)})
			check(err)
			if stored[0] != tlog.RecordHash(entry) {
				check(fmt.Errorf("entry %d is not what its hash is of", seq))
			}
			if seq%37 == 0 {
				proof, err := tlog.ProveRecord(size, seq, reader)
				check(err)
				check(tlog.CheckRecord(proof, size, tree.Hash, seq, stored[0]))
			}
			seq++
		}
	}
	if seq != size {
		check(fmt.Errorf("%d entries, and %d are signed", seq, size))
	}
	fmt.Println(seq)
}
