package queue

// Code is the kind of an [Error], stable and fit for the wire. It is an error itself, so that
// errors.Is(err, queue.Busy) asks for the kind.
type Code string

// The kinds of errors that commands and queries give.
const (
	Invalid     Code = "invalid"     // the request is malformed or over a limit
	Impossible  Code = "impossible"  // no node of the cluster could ever run it
	Busy        Code = "busy"        // a cap is reached; try again later
	NotFound    Code = "not-found"   // no such job or task (any more)
	Stale       Code = "stale"       // the epoch is not the task's live one
	Refused     Code = "refused"     // the task is not in a state that allows it
	Denied      Code = "denied"      // the job belongs to somebody else
	Unavailable Code = "unavailable" // the site does not answer or has no leader now
)

// Error makes a code a target for errors.Is.
func (c Code) Error() string { return string(c) }

// Error is a refusal with its kind, its cause in words, and what the user can do ("" if nothing is known).
type Error struct {
	Code Code   `cbor:"1,keyasint"`
	Text string `cbor:"2,keyasint"`
	Hint string `cbor:"3,keyasint,omitempty"`
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// Is reports whether target is e's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

func refuse(code Code, text string) *Error { return &Error{Code: code, Text: text} }
