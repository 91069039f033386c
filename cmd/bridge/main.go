// Command bridge receives Gemini API webhooks, verifies and validates them, and publishes them as CloudEvents.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // something went wrong while running
	exitUsage   = 2 // the configuration or the command line is wrong
)

// shell is what the process has of the outside world. A test has its own.
type shell struct {
	environ  []string
	stdin    io.Reader
	out, err io.Writer
	signals  func() <-chan os.Signal // SIGINT, SIGTERM and SIGHUP; they end a command that does not ask for them
}

func main() {
	signal.Ignore(syscall.SIGPIPE) // who reads the output may leave; what is under way ends in order
	os.Exit(run(os.Args[1:], shell{os.Environ(), os.Stdin, os.Stdout, os.Stderr, signals}))
}

func signals() <-chan os.Signal {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	return c
}

const usage = `bridge receives Gemini API webhooks and publishes them as CloudEvents on NATS JetStream or Kafka.

  bridge demo       see it work: a broker, a bridge and one webhook of every kind, all on this machine
  bridge serve      run the bridge (the default); settings are environment variables
  bridge send       sign a sample webhook, or a file, and post it to a bridge
  bridge tail       print the events that consumers of the broker receive
  bridge dead       list, show and replay dead letters
  bridge journal    look at the events on disk that a broker may not have yet
  bridge health     ask a running bridge whether it is ready, for health checks of containers
  bridge config     print every setting, where it comes from, and every mistake
  bridge version    print the version

bridge <command> --help tells more.
`

// run is the whole program: it returns the exit code.
func run(args []string, sh shell) int {
	command := "serve"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "serve":
		return serveCommand(args, sh)
	case "demo":
		return demoCommand(args, sh)
	case "send":
		return sendCommand(args, sh)
	case "tail":
		return tailCommand(args, sh)
	case "dead":
		return deadCommand(args, sh)
	case "journal":
		return journalCommand(args, sh)
	case "health":
		return healthCommand(args, sh)
	case "config":
		return configCommand(args, sh.environ, sh.out, sh.err)
	case "version", "--version":
		return versionCommand(args, sh)
	case "help", "--help", "-h":
		fmt.Fprint(sh.out, usage)
		return exitOK
	}
	fmt.Fprintf(sh.err, "bridge: unknown command %q\n\n%s", command, usage)
	return exitUsage
}

const versionUsage = `Usage: bridge version

Prints the version.
`

func versionCommand(args []string, sh shell) int {
	if code, done := newFlags("version", versionUsage).parse(args, sh); done {
		return code
	}
	fmt.Fprintln(sh.out, "bridge", version)
	return exitOK
}
