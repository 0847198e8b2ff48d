package sge

// option is one row of a command's table: a name with its dash, how many words follow it, and what they do.
type option[R any] struct {
	name  string
	words int
	apply func(r *R, args []string) error
}

// scan applies options up to the first word that is none and returns the rest. What is not in the table, or lacks its
// words, is an error made by bad from the word it stopped at.
func scan[R any](table []option[R], r *R, args []string, bad func(word string) error) ([]string, error) {
	for len(args) > 0 {
		word := args[0]
		if word == "--" {
			return args[1:], nil
		}
		if len(word) < 2 || word[0] != '-' {
			return args, nil
		}
		o := find(table, word)
		if o == nil || len(args)-1 < o.words {
			return nil, bad(word)
		}
		if err := o.apply(r, args[1:1+o.words]); err != nil {
			return nil, err
		}
		args = args[1+o.words:]
	}
	return nil, nil
}

func find[R any](table []option[R], name string) *option[R] {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}
