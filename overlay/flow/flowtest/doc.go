// Package flowtest reads flows as text, both as package flow writes them and as ovs-ofctl(8) dumps them, and follows frames
// through them, over as many bridges as a test has: a second, slow way to say what a real Open vSwitch does with a table.
// It knows the words of OpenFlow that package flow uses, and refuses all others.
//
//	sw, err := flowtest.Parse(lines, groups)
//	net := flowtest.Net{Nodes: []*flowtest.Node{a, b}}
//	fate := net.Walk(a, flowtest.Frame(flowtest.Local).With("eth_dst", mac))
//
// Tests alone use it.
package flowtest
