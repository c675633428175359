// Checks an immured ledger with an implementation that is not ours: golang.org/x/mod/sumdb/note and sumdb/tlog.
//
//	check open VKEY NOTE             prints the text, if VKEY signed it; "unknown N" signatures are counted on stderr
//	check cosigned VKEY NOTE         the same by a witness's key (c2sp.org/tlog-cosignature), and "time N" on stderr
//	check sign SKEY NAME             signs the text on standard input: prints the vkey, an empty line, the note
//	check tree LINES                 for each size: its root; for each pair of sizes: proofs; as JSON
//	check proof VKEY FILE            a tlog-proof: prints the entry
//	check consistency VKEY OLD FILE  that FILE goes on from the checkpoint OLD
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(what string, args []string) error {
	switch what {
	case "open":
		verifier, err := note.NewVerifier(args[0])
		if err != nil {
			return err
		}
		return open(verifier, args[1])
	case "cosigned":
		verifier, err := newWitness(args[0])
		if err != nil {
			return err
		}
		if err := open(verifier, args[1]); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "time", verifier.time)
		return nil
	case "sign":
		return sign(args[0], args[1])
	case "tree":
		return tree(args[0])
	case "proof":
		return proof(args[0], args[1])
	case "consistency":
		return consistency(args[0], args[1], args[2])
	}
	return errors.New("check: what?")
}

func open(verifier note.Verifier, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	opened, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "unknown", len(opened.UnverifiedSigs))
	fmt.Print(opened.Text)
	return nil
}

// A witness is a note.Verifier of timestamped cosignatures.
type witness struct {
	name string
	key  ed25519.PublicKey
	hash uint32
	time uint64
}

func newWitness(vkey string) (*witness, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("no vkey")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 33 || raw[0] != 4 {
		return nil, errors.New("no witness's vkey")
	}
	digest := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	made := &witness{name: parts[0], key: raw[1:], hash: binary.BigEndian.Uint32(digest[:4])}
	if fmt.Sprintf("%08x", made.hash) != parts[1] {
		return nil, errors.New("wrong key id")
	}
	return made, nil
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }

func (w *witness) Verify(text, sig []byte) bool {
	if len(sig) != 72 {
		return false
	}
	w.time = binary.BigEndian.Uint64(sig[:8])
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", w.time, text)
	return ed25519.Verify(w.key, []byte(signed), sig[8:])
}

func sign(seed, name string) error {
	raw, err := base64.StdEncoding.DecodeString(seed)
	if err != nil {
		return err
	}
	skey, vkey, err := note.GenerateKey(bytes.NewReader(raw), name)
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, signer)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n\n%s", vkey, signed)
	return nil
}

// A store is every stored hash of a tree, in tlog's own order.
type store []tlog.Hash

func (s store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		if at >= int64(len(s)) {
			return nil, errors.New("no such hash")
		}
		found[i] = s[at]
	}
	return found, nil
}

func tree(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all store
	lines := bytes.Split(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n"))
	leaves := []string{}
	for n, line := range lines {
		leaf := tlog.RecordHash(line)
		leaves = append(leaves, leaf.String())
		hashes, err := tlog.StoredHashesForRecordHash(int64(n), leaf, all)
		if err != nil {
			return err
		}
		all = append(all, hashes...)
	}
	roots := []string{}
	inclusion, between := map[string][]string{}, map[string][]string{}
	for size := int64(1); size <= int64(len(lines)); size++ {
		root, err := tlog.TreeHash(size, all)
		if err != nil {
			return err
		}
		roots = append(roots, root.String())
		for n := int64(0); n < size; n++ {
			path, err := tlog.ProveRecord(size, n, all)
			if err != nil {
				return err
			}
			inclusion[fmt.Sprintf("%d/%d", n, size)] = texts(path)
			older, err := tlog.ProveTree(size, n+1, all)
			if err != nil {
				return err
			}
			between[fmt.Sprintf("%d/%d", n+1, size)] = texts(older)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"leaves": leaves, "roots": roots, "inclusion": inclusion, "consistency": between,
	})
}

func texts(path []tlog.Hash) []string {
	said := []string{}
	for _, hash := range path {
		said = append(said, hash.String())
	}
	return said
}

// parts of a proof: the lines before the first empty one, and the note after it.
func parts(file string) ([]string, []byte, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	at := bytes.Index(raw, []byte("\n\n"))
	if at < 0 {
		return nil, nil, errors.New("no empty line")
	}
	return strings.Split(string(raw[:at]), "\n"), raw[at+2:], nil
}

func checkpoint(vkey string, raw []byte) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	return head(opened.Text)
}

func head(text string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return tlog.Tree{}, errors.New("not three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

func path(lines []string) ([]tlog.Hash, error) {
	found := []tlog.Hash{}
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		found = append(found, hash)
	}
	return found, nil
}

func proof(vkey, file string) error {
	lines, raw, err := parts(file)
	if err != nil {
		return err
	}
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("no tlog-proof")
	}
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	hashes, err := path(lines[3:])
	if err != nil {
		return err
	}
	tree, err := checkpoint(vkey, raw)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return err
	}
	fmt.Printf("%s\n", entry)
	return nil
}

func consistency(vkey, old, file string) error {
	lines, raw, err := parts(file)
	if err != nil {
		return err
	}
	hashes, err := path(lines[1:])
	if err != nil {
		return err
	}
	newer, err := checkpoint(vkey, raw)
	if err != nil {
		return err
	}
	kept, err := os.ReadFile(old)
	if err != nil {
		return err
	}
	older, err := checkpoint(vkey, kept)
	if err != nil {
		return err
	}
	if lines[0] != fmt.Sprintf("old %d", older.N) {
		return errors.New("another older size")
	}
	if older.N == newer.N { // tlog.CheckTree asks for a newer one
		if older.Hash != newer.Hash || len(hashes) != 0 {
			return errors.New("two trees of one size")
		}
		return nil
	}
	return tlog.CheckTree(hashes, newer.N, newer.Hash, older.N, older.Hash)
}
