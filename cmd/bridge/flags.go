package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// flags is a subcommand's flag set with a help text written by hand.
type flags struct {
	*flag.FlagSet
	usage string
}

func newFlags(command, usage string) flags {
	set := flag.NewFlagSet("bridge "+command, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	return flags{set, usage}
}

// parse reads args, which hold nothing but flags. done means that the command ends with code: help was asked for, or
// args are wrong.
func (f flags) parse(args []string, sh shell) (code int, done bool) {
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(sh.out, f.usage)
		return exitOK, true
	case err == nil && f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case err == nil:
		return exitOK, false
	}
	fmt.Fprintf(sh.err, "%s: %v\n%s --help tells more\n", f.Name(), err, f.Name())
	return exitUsage, true
}
