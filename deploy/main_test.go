// Package deploy_test checks what stands in this directory, and docker-compose.yml, without Docker: it builds the same
// image into a directory, and runs the same commands with the same settings against real brokers.
package deploy_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/gembridge/bridge/internal/kafkatest"
)

const testVersion = "v1.2.3-test"

// built is the image of Dockerfile.
var built *image

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bridge-image-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // for the image's user
	}
	if err == nil {
		built, err = buildImage(dir, "..", "Dockerfile", map[string]string{"VERSION": testVersion})
	}
	finish := func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		finish(1)
	}
	kafkatest.Main(m, goleak.Cleanup(finish))
}
