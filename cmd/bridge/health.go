package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

const healthUsage = `Usage: bridge health

Asks the bridge that runs on this machine with the same settings whether it would accept a delivery durably now, and
prints its answer, /readyz at BRIDGE_ADMIN_ADDR. It is the health check of containers, whose image has no other program.

Exit code: 0 when it would, 1 when it would not or does not answer, 2 when settings or the command line are wrong.
`

// healthTimeout is more than /readyz takes to ask every part.
const healthTimeout = 2 * readyTimeout

func healthCommand(args []string, sh shell) int {
	f := newFlags("health", healthUsage)
	if code, done := f.parse(args, sh); done {
		return code
	}
	cfg, found := readConfig(sh.environ)
	if len(found) > 0 {
		fmt.Fprintln(sh.err, found)
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	if err := health(ctx, "http://"+reachable(cfg.AdminAddr)+"/readyz", sh.out); err != nil {
		fmt.Fprintln(sh.err, "bridge health:", err)
		return exitFailure
	}
	return exitOK
}

// health copies the answer of url to out. Any but 200 is an error.
func health(ctx context.Context, url string, out io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(out, io.LimitReader(response.Body, 64<<10)); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", response.Status)
	}
	return nil
}
