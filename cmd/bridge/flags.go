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
	operands, code, done := f.parseMixed(args, sh)
	if !done && len(operands) > 0 {
		return f.mistake(fmt.Errorf("unexpected argument %q", operands[0]), sh), true
	}
	return code, done
}

// parseMixed is parse for args that also hold operands, before, between and behind the flags. What follows "--" is one,
// whatever it begins with.
func (f flags) parseMixed(args []string, sh shell) (operands []string, code int, done bool) {
	for {
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(sh.out, f.usage)
			return nil, exitOK, true
		}
		if err != nil {
			return nil, f.mistake(err, sh), true
		}
		rest := f.Args()
		if read := len(args) - len(rest); len(rest) == 0 || read > 0 && args[read-1] == "--" {
			return append(operands, rest...), exitOK, false
		}
		operands, args = append(operands, rest[0]), rest[1:]
	}
}

// mistake says what is wrong with the command line.
func (f flags) mistake(err error, sh shell) (code int) {
	fmt.Fprintf(sh.err, "%s: %v\n%s --help tells more\n", f.Name(), err, f.Name())
	return exitUsage
}
