package interop

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// conformance is the page whose table names the tests.
const conformance = "../../docs/conformance.md"

// The page is a promise: it names every test, every test it names exists, and it says of which Go is known to fail.
func Test_the_table_of_conformance_names_every_test(t *testing.T) {
	page, err := os.ReadFile(conformance)
	require.NoError(t, err)
	row := regexp.MustCompile("^\\| .*\\| `(Test_\\w+)` \\| (yes|defect) \\| (yes|defect) \\|$")
	named := make(map[string]string)
	for _, line := range strings.Split(string(page), "\n") {
		if match := row.FindStringSubmatch(line); match != nil {
			named[match[1]] = match[2]
		}
	}

	written := writtenTests(t)
	delete(written, t.Name())
	for test, defective := range written {
		require.Contains(t, named, test, "docs/conformance.md has no row for it")
		require.Equal(t, defective, named[test] == "defect", "%s: what docs/conformance.md says of Go", test)
	}
	for test := range named {
		require.Contains(t, written, test, "docs/conformance.md names a test that does not exist")
	}

	functions := rustFunctions(t)
	unit := regexp.MustCompile("`([a-z0-9]+(?:_[a-z0-9]+){3,})`")
	for _, line := range strings.Split(string(page), "\n") {
		for _, match := range unit.FindAllStringSubmatch(line, -1) {
			require.Contains(t, functions, match[1], "docs/conformance.md names a Rust test that does not exist")
		}
	}
}

// rustFunctions are the names of all functions of the workspace.
func rustFunctions(t *testing.T) map[string]bool {
	t.Helper()
	const root = "../.."
	definition := regexp.MustCompile(`\bfn (\w+)`)
	functions := make(map[string]bool)
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "target" || entry.Name() == ".git"):
			return fs.SkipDir
		case filepath.Ext(path) != ".rs":
			return nil
		}
		text, err := os.ReadFile(path)
		for _, match := range definition.FindAllSubmatch(text, -1) {
			functions[string(match[1])] = true
		}
		return err
	}))
	return functions
}

// writtenTests are the tests of this directory, and whether Go is known to fail them.
func writtenTests(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	slices.Sort(files)
	written := make(map[string]bool)
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		for _, declaration := range parsed.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || function.Recv != nil || !strings.HasPrefix(function.Name.Name, "Test_") {
				continue
			}
			written[function.Name.Name] = false
			ast.Inspect(function, func(node ast.Node) bool {
				if call, ok := node.(*ast.CallExpr); ok {
					if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "goDefect" {
						written[function.Name.Name] = true
					}
				}
				return true
			})
		}
	}
	return written
}
