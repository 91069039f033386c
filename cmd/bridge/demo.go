package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/schemas"
)

const demoUsage = `Usage: bridge demo [--stay]

Shows the whole road on this machine: starts a bridge with a NATS server inside, signs one sample webhook of every
kind with a throw-away secret, posts them, and prints each event as a consumer receives it. It needs no network,
no settings and no particular port, and leaves nothing behind.

  --stay    keep it running until Ctrl-C, and print a line that sends and one that consumes

Exit code: 0 when every event arrived, else 1.
`

const demoTimeout = 30 * time.Second

func demoCommand(args []string, sh shell) int {
	f := newFlags("demo", demoUsage)
	stay := f.Bool("stay", false, "")
	if code, done := f.parse(args, sh); done {
		return code
	}
	stop, _, release := follow(sh.signals())
	defer release()
	if err := demo(stop, *stay, sh); err != nil {
		fmt.Fprintln(sh.err, "bridge demo:", err)
		return exitFailure
	}
	return exitOK
}

func demo(stop context.Context, stay bool, sh shell) (err error) {
	dir, err := os.MkdirTemp("", "bridge-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	key := verify.GenerateSecret()
	cfg, err := loadConfig([]string{
		"BRIDGE_ADDR=127.0.0.1:0", "BRIDGE_ADMIN_ADDR=127.0.0.1:0", "BRIDGE_NATS_EMBEDDED_ADDR=127.0.0.1:0",
		"BRIDGE_DATA_DIR=" + dir, "BRIDGE_SIGNING_SECRETS=" + key.Reveal(), "BRIDGE_LOG_LEVEL=error",
	})
	if err != nil {
		return err
	}
	d, err := start(stop, cfg, newLog(cfg, sh.err))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	url := "http://" + d.publicAddr.String() + cfg.Path
	fmt.Fprintf(sh.out, "A bridge runs at %s, its NATS server at %s.\nOne webhook of every kind, signed and posted; as consumers of %s.> receive them:\n\n",
		url, d.natsURL, cfg.NATS.SubjectPrefix)
	ctx, cancel := context.WithTimeout(stop, demoTimeout)
	defer cancel()
	sent, err := postSamples(ctx, url, key)
	if err != nil {
		return err
	}
	received, err := printEvents(ctx, d, sent, sh)
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("%d of %d events received: %w", received, sent, err)
	}
	fmt.Fprintf(sh.out, "%d of %d events received.\n", received, sent)
	if stay {
		fmt.Fprintf(sh.out, stayText, key.Reveal(), executable(), url, d.natsURL, executable(), d.natsURL, cfg.NATS.Stream)
		<-stop.Done()
	}
	return nil
}

const stayText = `
It stays until you press Ctrl-C. In another terminal, send another webhook:

  BRIDGE_SIGNING_SECRETS=%s %s send --url %s --type video.generated

and see events as they arrive:

  BRIDGE_NATS_URL=%s %s tail

Any NATS client can read them too: server %s, stream %s.
`

func postSamples(ctx context.Context, url string, key secret.Text) (sent int, err error) {
	for _, typ := range schemas.Types() {
		body, err := schemas.Example(typ)
		if err != nil {
			return sent, err
		}
		code, reply, err := post(ctx, http.DefaultClient, url, static(key), newID(), body)
		if err != nil {
			return sent, err
		}
		if code != http.StatusAccepted {
			return sent, fmt.Errorf("%s was answered %d %s", typ, code, reply)
		}
		sent++
	}
	return sent, nil
}

// printEvents reads as any consumer does: over TCP, without credentials.
func printEvents(ctx context.Context, d *daemon, count int, sh shell) (received int, err error) {
	reader, err := jetstream.NewReader(jetstream.ReaderConfig{Conn: jetstream.Conn{URL: d.natsURL}, Stream: d.cfg.NATS.Stream})
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	err = reader.Read(ctx, sinks.FromStart(), func(record sinks.Record) error {
		if record.Err != nil {
			return record.Err
		}
		fmt.Fprintf(sh.out, "%s\n%s\n\n", record.Name, record.Event)
		if received++; received == count {
			return errEnough
		}
		return nil
	})
	return received, err
}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9/._+-]+$`)

// executable is how a shell finds this program: "bridge" if that is it, else its path, in quotes where it needs them.
func executable() string {
	path, err := os.Executable()
	if err != nil {
		return "bridge"
	}
	if found, err := exec.LookPath("bridge"); err == nil {
		if found, err = filepath.EvalSymlinks(found); err == nil && found == path {
			return "bridge"
		}
	}
	if plainPath.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
