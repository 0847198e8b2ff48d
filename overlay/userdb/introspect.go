package userdb

import (
	_ "embed"
	"encoding/json"
)

// description is the interface as `varlinkctl introspect` shows it.
//
//go:embed userdatabase.varlink
var description string

// introspect answers the two methods that every varlink service has.
func introspect(method string, c call) reply {
	switch method {
	case "GetInfo":
		return reply{Parameters: map[string]any{
			"vendor": "vcpeer", "product": "vcpeer accounts", "version": "1", "url": "",
			"interfaces": []string{"org.varlink.service", interfaceName},
		}}
	case "GetInterfaceDescription":
		var q struct {
			Interface string `json:"interface"`
		}
		if err := json.Unmarshal(c.Parameters, &q); err != nil {
			return reply{Error: errBadParameter, Parameters: map[string]string{"parameter": "interface"}}
		}
		if q.Interface != interfaceName {
			return reply{Error: errNoInterface, Parameters: map[string]string{"interface": q.Interface}}
		}
		return reply{Parameters: map[string]string{"description": description}}
	}
	return reply{Error: errNoMethod, Parameters: map[string]string{"method": c.Method}}
}
