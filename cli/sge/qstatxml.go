package sge

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"vcpeer/peer/api"
)

const xmlHead = `<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
`

// writeXML prints the list for programs: what runs under queue_info (by machine with full), what waits under job_info.
func writeXML(w io.Writer, rows []row, hosts []api.Host, full bool) error {
	var b bytes.Buffer
	b.WriteString(xmlHead + "  <queue_info>\n")
	if full {
		for _, h := range hosts {
			writeQueueXML(&b, h, rows)
		}
	} else {
		for _, r := range rows {
			if !r.waits() {
				writeJobXML(&b, r, "    ", true)
			}
		}
	}
	b.WriteString("  </queue_info>\n  <job_info>\n")
	for _, r := range rows {
		if r.waits() {
			writeJobXML(&b, r, "    ", !full)
		}
	}
	b.WriteString("  </job_info>\n</job_info>\n")
	_, err := w.Write(b.Bytes())
	return err
}

func writeQueueXML(b *bytes.Buffer, h api.Host, rows []row) {
	b.WriteString("    <Queue-List>\n")
	element(b, "      ", "name", "main.q@"+h.Name)
	element(b, "      ", "qtype", "BIP")
	element(b, "      ", "slots_used", fmt.Sprint(usedSlots(rows, h.Name)))
	element(b, "      ", "slots_resv", "0")
	element(b, "      ", "slots_total", fmt.Sprint(h.CPUs))
	element(b, "      ", "arch", arch(h))
	if s := hostState(h); s != "" {
		element(b, "      ", "state", s)
	}
	for _, r := range rows {
		if r.node == h.Name {
			writeJobXML(b, r, "      ", false)
		}
	}
	b.WriteString("    </Queue-List>\n")
}

func writeJobXML(b *bytes.Buffer, r row, indent string, queue bool) {
	kind, stamp := "running", "JAT_start_time"
	if r.waits() {
		kind, stamp = "pending", "JB_submission_time"
	}
	fmt.Fprintf(b, "%s<job_list state=\"%s\">\n", indent, kind)
	in := indent + "  "
	element(b, in, "JB_job_number", fmt.Sprint(r.job.Seq))
	element(b, in, "JAT_prio", r.prior())
	element(b, in, "JB_name", r.job.Name)
	element(b, in, "JB_owner", r.job.User)
	element(b, in, "state", r.state)
	element(b, in, stamp, r.iso)
	if queue {
		element(b, in, "queue_name", r.queue())
	}
	element(b, in, "slots", fmt.Sprint(max(1, r.job.Slots)))
	if r.tasks != "" {
		element(b, in, "tasks", r.tasks)
	}
	fmt.Fprintf(b, "%s</job_list>\n", indent)
}

func element(b *bytes.Buffer, indent, name, value string) {
	var text strings.Builder
	_ = xml.EscapeText(&text, []byte(value)) // a Builder does not fail
	fmt.Fprintf(b, "%s<%s>%s</%s>\n", indent, name, text.String(), name)
}
