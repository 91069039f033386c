package main

import (
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gembridge/bridge/pkg/ingress"
)

// limitMemory makes the garbage collector keep the process below what it may use, unless GOMEMLIMIT says how much:
// its control group's limit, or half of the machine's memory where there is none. root is the root of the file system.
func limitMemory(environ []string, root fs.FS) {
	if set(environ, "GOMEMLIMIT") {
		return
	}
	if limit := controlGroupLimit(root); limit > 0 {
		debug.SetMemoryLimit(heapWithin(limit))
	} else if machine := machineMemory(root); machine > 0 {
		debug.SetMemoryLimit(machine / 2)
	}
}

// heapWithin is the part of a control group's limit that the garbage collector gets: it does not know of the program
// itself, and is late at times.
func heapWithin(limit int64) int64 { return max(limit-max(limit/10, 32<<20), limit/2) }

func set(environ []string, name string) bool {
	return slices.ContainsFunc(environ, func(line string) bool {
		value, ok := strings.CutPrefix(line, name+"=")
		return ok && value != ""
	})
}

// controlGroupLimit is the smallest memory limit among the process's control groups, of version 2 or 1, or 0. A
// container sees its own group as the root, or sees none of the path that /proc/self/cgroup names.
func controlGroupLimit(root fs.FS) int64 {
	var least int64
	content, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(content)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy, controllers, path
		if len(fields) < 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		switch {
		case fields[0] == "0" && fields[1] == "":
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			if limit := number(root, path.Join(dir, group, file)); limit > 0 && (least == 0 || limit < least) {
				least = limit
			}
			if group == "/" {
				break
			}
		}
	}
	return least
}

// number reads a file that holds a number, or 0: "max" is none, and so is what version 1 has instead, the largest
// multiple of a page.
func number(root fs.FS, name string) int64 {
	content, _ := fs.ReadFile(root, name)
	n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil || n > math.MaxInt64/2 {
		return 0
	}
	return n
}

// machineMemory is in proc/meminfo: "MemTotal:       24683760 kB".
func machineMemory(root fs.FS) int64 {
	content, _ := fs.ReadFile(root, "proc/meminfo")
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// bounds is what strangers may take of the process.
type bounds struct {
	connections int // open at once
	unverified  int // bytes of bodies
}

// boundsFor leaves strangers at most a third of the memory for connections and an eighth for bodies, and a quarter
// of the file descriptors to the rest of the process. Where there is enough of all, connections are twice what may be
// in flight and bodies have 64 MiB.
func boundsFor(cfg *Config, memory int64, files uint64) bounds {
	return bounds{
		connections: max(16, int(min(uint64(max(2*cfg.MaxInflight, 1024)), uint64(memory/3/ingress.ConnCost), files/4*3))),
		unverified:  max(int(min(64<<20, memory/8)), 2*int(cfg.MaxBody)),
	}
}

// resources are the limits of this process: memory as the garbage collector keeps it, and open files.
func resources() (memory int64, files uint64) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil { // Go has raised it as far as it may
		limit.Cur = 1024
	}
	return debug.SetMemoryLimit(-1), limit.Cur
}
