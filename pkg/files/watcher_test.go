package files_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/files"
)

func TestChangeIsApplied(t *testing.T) {
	for name, tc := range map[string]struct{ setUp, change func(*bubble) }{
		"written in place": {
			func(b *bubble) { b.write("f", "old") },
			func(b *bubble) { b.write("f", "new") },
		},
		"same length, same modification time": {
			func(b *bubble) { b.write("f", "old") },
			func(b *bubble) {
				info, err := os.Stat(b.path("f"))
				b.do(err)
				b.write("f", "new")
				b.do(os.Chtimes(b.path("f"), info.ModTime(), info.ModTime()))
			},
		},
		"renamed over": {
			func(b *bubble) { b.write("f", "old") },
			func(b *bubble) {
				b.write("f.tmp", "new")
				b.do(os.Rename(b.path("f.tmp"), b.path("f")))
			},
		},
		"symlink swapped by Kubernetes": {
			func(b *bubble) {
				b.do(os.Mkdir(b.path("..2026_01"), 0o700))
				b.write("..2026_01/f", "old")
				b.do(os.Symlink("..2026_01", b.path("..data")))
				b.do(os.Symlink("..data/f", b.path("f")))
			},
			func(b *bubble) {
				b.do(os.Mkdir(b.path("..2026_02"), 0o700))
				b.write("..2026_02/f", "new")
				b.do(os.Symlink("..2026_02", b.path("..data_tmp")))
				b.do(os.Rename(b.path("..data_tmp"), b.path("..data")))
				b.do(os.RemoveAll(b.path("..2026_01")))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				tc.setUp(b)
				b.watch("f")
				b.looks(3)
				b.want()

				tc.change(b)
				b.looks(1)
				b.want() // seen once, not yet known to be whole
				b.looks(1)
				b.want("new")
				b.looks(5)
				b.want()
				b.wantLog(0, reloaded)
			})
		})
	}
}

func TestHalfWrittenFileWaits(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "old")
		b.watch("f")
		for n := range 6 {
			b.write("f", strings.Repeat("x", n))
			b.looks(1)
			b.want()
		}
		b.looks(1)
		b.want("xxxxx")
		b.wantLog(0, reloaded)
	})
}

func TestChangeTakenBackIsNotApplied(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "old")
		b.watch("f")
		b.write("f", "new")
		b.looks(1)
		b.write("f", "old")
		b.looks(5)
		b.want()
		b.wantLog(0)
	})
}

func TestGroupIsAppliedTogether(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("cert", "c1")
		b.write("key", "k1")
		b.watch("cert", "key")

		b.write("cert", "c2")
		b.looks(1)
		b.write("key", "k2") // the pair is whole only now
		b.looks(1)
		b.want()
		b.looks(1)
		b.want("c2+k2")

		b.write("key", "k3")
		b.looks(2)
		b.want("c2+k3")

		b.write("cert", "c") // the bytes of both together stay the same
		b.write("key", "2k3")
		b.looks(2)
		b.want("c+2k3")
		b.wantLog(0, reloaded, reloaded, reloaded)
	})
}

func TestGroupWithMissingFileKeepsBoth(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("cert", "c1")
		b.write("key", "k1")
		b.watch("cert", "key")
		b.write("cert", "c2")
		b.do(os.Remove(b.path("key")))
		b.looks(4)
		b.want()
		b.wantLog(1, unusable)
		b.write("key", "k2")
		b.looks(2)
		b.want("c2+k2")
		b.wantLog(0, reloaded)
	})
}

func TestFileDisappearsAndReturns(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "old")
		b.watch("f")

		b.do(os.Remove(b.path("f")))
		b.looks(1)
		b.wantLog(0) // missing for a moment is how some editors save
		b.looks(10)
		b.wantLog(1, unusable)

		b.write("f", "old")
		b.looks(10)
		b.want()
		b.wantLog(0, again)

		b.do(os.Remove(b.path("f")))
		b.looks(10)
		b.wantLog(1, unusable)
		b.write("f", "new")
		b.looks(2)
		b.want("new")
		b.looks(10)
		b.want()
		b.wantLog(0, reloaded)
	})
}

func TestUnusableContentIsReportedOnce(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "good 1")
		b.watch("f")
		b.refuse("bad")

		b.write("f", "bad 1")
		b.looks(10)
		b.wantLog(1, errRefused.Error())

		b.write("f", "bad 2") // another failing content is another failure
		b.looks(10)
		b.wantLog(1, unusable)

		b.do(os.Remove(b.path("f")))
		b.looks(10)
		b.wantLog(1, "no such file")

		b.write("f", "good 1")
		b.looks(10)
		b.want()
		b.wantLog(0, again)

		b.write("f", "bad 2")
		b.looks(10)
		b.wantLog(1, unusable)

		b.write("f", "good 2")
		b.looks(10)
		b.want("good 2")
		b.wantLog(0, reloaded)
	})
}

func TestContentsAreNotLogged(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "hush 1")
		b.watch("f")
		b.write("f", "hush 2")
		b.looks(2)
		b.refuse("hush 3")
		b.write("f", "hush 3")
		b.looks(2)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.log.Len() == 0 || strings.Contains(b.log.String(), "hush") {
			t.Errorf("log is %q, want two lines without contents", b.log.String())
		}
	})
}

func TestGroupsAreIndependent(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "old")
		b.watch("f")
		b.write("g", "g1")
		var other []string
		b.do(b.watcher.Watch("tokens", []string{b.path("g")}, func(c [][]byte) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			other = append(other, string(c[0]))
			return nil
		}))
		b.do(os.Remove(b.path("f")))
		b.write("g", "g2")
		b.looks(3)
		if want := []string{"g1", "g2"}; !slices.Equal(other, want) {
			t.Errorf("applied %q, want %q", other, want)
		}
		b.want()
	})
}

func TestUnreadable(t *testing.T) {
	// Both as the first thing found and as a change, with the error that says why.
	for name, tc := range map[string]struct {
		make func(b *bubble)
		want string
	}{
		"missing":     {func(*bubble) {}, "no such file"},
		"directory":   {func(b *bubble) { b.do(os.Mkdir(b.path("f"), 0o700)) }, "not a regular file"},
		"pipe":        {func(b *bubble) { b.do(syscall.Mkfifo(b.path("f"), 0o600)) }, "not a regular file"},
		"broken link": {func(b *bubble) { b.do(os.Symlink("nowhere", b.path("f"))) }, "no such file"},
		"too large":   {func(b *bubble) { b.write("f", strings.Repeat("x", files.MaxSize+1)) }, "larger than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				tc.make(b)
				err := b.watcher.Watch("secrets", []string{b.path("f")}, b.apply)
				if err == nil || !strings.Contains(err.Error(), tc.want) ||
					!strings.Contains(err.Error(), b.path("f")) || !strings.HasPrefix(err.Error(), "secrets: ") {
					t.Errorf("Watch: got %v, want an error that names the file and says %q", err, tc.want)
				}
				if notExist := errors.Is(err, fs.ErrNotExist); notExist != (tc.want == "no such file") {
					t.Errorf("errors.Is(err, fs.ErrNotExist) is %v", notExist)
				}
				b.want()

				b.do(os.RemoveAll(b.path("f")))
				b.write("f", "old")
				b.watch("f")
				b.do(os.Remove(b.path("f")))
				tc.make(b)
				b.looks(10)
				b.want()
				b.wantLog(1, tc.want)
			})
		})
	}
}

func TestLargestFileIsRead(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "old")
		b.watch("f")
		largest := strings.Repeat("x", files.MaxSize)
		b.write("f", largest)
		b.looks(2)
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.applied) != 1 || b.applied[0] != largest {
			t.Errorf("a file of MaxSize bytes was not applied whole")
		}
	})
}

func TestWatchAppliesBeforeItReturns(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "old")
		b.do(b.watcher.Watch("secrets", []string{b.path("f")}, b.apply))
		b.want("old")
		b.looks(10)
		b.want()
		b.wantLog(0)
	})
}

func TestWatchRefusedByApply(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.write("f", "bad")
		b.refuse("bad")
		err := b.watcher.Watch("secrets", []string{b.path("f")}, b.apply)
		if !errors.Is(err, errRefused) || !strings.HasPrefix(err.Error(), "secrets: ") {
			t.Errorf("got %v, want apply's error after the name", err)
		}
		b.write("f", "good")
		b.looks(10)
		b.want() // what failed at start is not watched
		b.wantLog(0)
	})
}

func TestZeroConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		w := files.New(files.Config{})
		go w.Run(t.Context())
		if err := os.WriteFile(path, []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		applied := make(chan time.Time, 2)
		if err := w.Watch("f", []string{path}, func([][]byte) error { applied <- time.Now(); return nil }); err != nil {
			t.Fatal(err)
		}
		<-applied
		<-time.After(300 * time.Millisecond) // out of step with the looks
		changed := time.Now()
		if err := os.WriteFile(path, []byte("2"), 0o600); err != nil {
			t.Fatal(err)
		}
		after := (<-applied).Sub(changed)
		if after < time.Second || after > 5*time.Second {
			t.Errorf("applied %s after the change, want 1 to 5 s", after)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		<-time.After(5 * time.Second) // no OnFailure, no Log: reported to nobody, without a panic
		synctest.Wait()
	})
}

// The same over the real clock, with writers that do not know of the looks.
func TestRealClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	w := files.New(files.Config{Interval: time.Millisecond})
	running.Go(func() { w.Run(ctx) })
	applied := make(chan string, 10)
	if err := w.Watch("f", []string{path}, func(c [][]byte) error { applied <- string(c[0]); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := <-applied; got != "0" {
		t.Fatalf("applied %q first, want what was there", got)
	}
	for _, want := range []string{"1", "2", "3"} {
		tmp := path + ".tmp"
		if err := os.WriteFile(tmp, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, path); err != nil {
			t.Fatal(err)
		}
		if got := <-applied; got != want {
			t.Fatalf("applied %q, want %q", got, want)
		}
	}
}
