package cli

import (
	"testing"

	"vcpeer/peer/api"
	"vcpeer/peer/api/apitest"
)

// TestKeysForSSHD: whoever is not surely the account's owner gets no keys, and only a node that does not answer is an error.
func TestKeysForSSHD(t *testing.T) {
	keys := []string{"ssh-ed25519 AAAA ann@desk", "ssh-rsa BBBB ann@laptop"}
	node := apitest.Start(t, apitest.Routes{
		"GET /v1/accounts/ann":  api.Account{Name: "ann", UID: 20001, Keys: keys},
		"GET /v1/accounts/bob":  api.Account{Name: "bob", UID: 20002, Keys: keys, Disabled: true, Why: "removed"},
		"GET /v1/accounts/root": &api.Problem{Code: api.CodeNotFound, Message: "no account is called \"root\""},
		"GET /v1/accounts/eve":  &api.Problem{Code: api.CodeUnavailable, Message: "this node is still starting"},
	})
	s := newShell(t, node)
	s.expect(0, "ssh-ed25519 AAAA ann@desk\nssh-rsa BBBB ann@laptop\n", "", "account", "keys", "ann", "20001")
	s.expect(0, "", "", "account", "keys", "ann", "1000")
	s.expect(0, "", "", "account", "keys", "bob", "20002")
	s.expect(0, "", "", "account", "keys", "root", "0")
	s.expect(1, "", "error: this node is still starting\n", "account", "keys", "eve", "20003")
	s.expect(2, "", "error: \"%U\" is no numeric user ID\nhint: sshd puts it in the place of %U\n", "account", "keys", "ann", "%U")
}
