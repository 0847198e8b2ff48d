package sge

import (
	"fmt"
	"io"
	"strings"

	"vcpeer/peer/api"
)

const (
	plainHead = "job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID "
	fullHead  = "queuename                      qtype resv/used/tot. load_avg arch          states"
	pendHead  = " - PENDING JOBS - PENDING JOBS - PENDING JOBS - PENDING JOBS - PENDING JOBS"
)

// jobLine is the part that every form of the list has.
func jobLine(r row) string {
	return fmt.Sprintf("%7d %s %-10.10s %-12.12s %-5.5s %s", r.job.Seq, r.prior(), r.job.Name, r.job.User, r.state, r.since)
}

// taskColumn is seven blanks for a job that is no array.
func taskColumn(tasks string) string {
	if tasks == "" {
		return strings.Repeat(" ", 7)
	}
	return tasks
}

// writePlain prints the usual list; nothing at all when it is empty.
func writePlain(w io.Writer, rows []row, need bool) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(w, plainHead)
	fmt.Fprintln(w, strings.Repeat("-", 113))
	for _, r := range rows {
		fmt.Fprintf(w, "%s %-30.30s %5d %s\n", jobLine(r), r.queue(), max(1, r.job.Slots), taskColumn(r.tasks))
		if need {
			writeNeed(w, r)
		}
	}
}

// writeNeed prints the lines that -r adds.
func writeNeed(w io.Writer, r row) {
	field := func(name, value string) { fmt.Fprintf(w, "       %-18s%s\n", name, value) }
	field("Full jobname:", r.job.Name)
	if r.node != "" {
		field("Master Queue:", r.queue())
	}
	if r.asked == nil {
		return
	}
	if pe := r.asked.Env["PE"]; pe != "" {
		field("Requested PE:", fmt.Sprintf("%s %d", pe, r.asked.Slots))
		if r.node != "" {
			field("Granted PE:", fmt.Sprintf("%s %d", pe, r.asked.Slots))
		}
	}
	list := resourceList(r.asked)
	if len(list) == 0 {
		field("Hard Resources:", "")
	}
	for i, item := range list {
		if i == 0 {
			field("Hard Resources:", item+" (0.000000)")
		} else {
			fmt.Fprintf(w, "%25s%s (0.000000)\n", "", item)
		}
	}
	field("Soft Resources:", "")
	field("Binding:", "NONE")
}

// resourceList is what was asked with -l.
func resourceList(s *api.Submit) []string {
	var list []string
	if s.Time > 0 {
		list = append(list, fmt.Sprintf("h_rt=%d", int64(s.Time.Seconds())))
	}
	if s.MemBytes > 0 {
		list = append(list, "h_vmem="+memoryText(s.MemBytes/int64(max(1, s.Slots))))
	}
	return list
}

// memoryText writes an amount in the largest unit that keeps it whole.
func memoryText(b int64) string {
	for _, u := range []struct {
		n    int64
		name string
	}{{1 << 40, "T"}, {1 << 30, "G"}, {1 << 20, "M"}, {1 << 10, "K"}} {
		if b >= u.n && b%u.n == 0 {
			return fmt.Sprintf("%d%s", b/u.n, u.name)
		}
	}
	return fmt.Sprint(b)
}

// writeFull prints a block for each machine and then what waits. The load is not known here and written as Grid Engine
// writes an unknown one.
func writeFull(w io.Writer, rows []row, hosts []api.Host, need bool) error {
	fmt.Fprintln(w, fullHead)
	for _, h := range hosts {
		used := usedSlots(rows, h.Name)
		fmt.Fprintln(w, strings.Repeat("-", 81))
		fmt.Fprintf(w, "%-30.30s %-5.5s %-14s %-8s %-13s %s\n", "main.q@"+h.Name, "BIP", fmt.Sprintf("0/%d/%d", used, h.CPUs), "-NA-", arch(h), hostState(h))
		for _, r := range rows {
			if r.node == h.Name {
				writeFullRow(w, r, need)
			}
		}
	}
	first := true
	for _, r := range rows {
		if !r.waits() {
			continue
		}
		if first {
			line := strings.Repeat("#", 76)
			fmt.Fprintf(w, "\n%s\n%s\n%s\n", line, pendHead, line)
			first = false
		}
		writeFullRow(w, r, need)
	}
	return nil
}

func writeFullRow(w io.Writer, r row, need bool) {
	fmt.Fprintf(w, "%s %5d %s\n", jobLine(r), max(1, r.job.Slots), taskColumn(r.tasks))
	if need {
		writeNeed(w, r)
	}
}

func usedSlots(rows []row, node string) int {
	n := 0
	for _, r := range rows {
		if r.node == node {
			n += max(1, r.job.Slots)
		}
	}
	return n
}

// arch is Grid Engine's name for a machine's kind.
func arch(h api.Host) string {
	switch h.Arch {
	case "amd64":
		return "lx-amd64"
	case "386":
		return "lx-x86"
	}
	return "lx-" + h.Arch
}

// hostState is "u" for a machine that is not heard.
func hostState(h api.Host) string {
	if h.State == "alive" || h.State == "" {
		return ""
	}
	return "au"
}
