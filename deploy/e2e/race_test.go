//go:build race

package e2e

// buildFlags makes the daemons look for data races too; what they find fails the test that saw it.
var buildFlags = []string{"-race"}
