package main

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestControlGroupLimit(t *testing.T) {
	const (
		mib  = 1 << 20
		none = "9223372036854771712\n" // version 1
	)
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing to read", nil, 0},
		{"version 2, a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"}, 512 * mib},
		{"version 2, without a limit", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		{"version 2, the root of a machine", map[string]string{"proc/self/cgroup": "0::/\n"}, 0},
		{"version 2, a service", map[string]string{
			"proc/self/cgroup": "0::/system.slice/bridge.service\n", "sys/fs/cgroup/system.slice/bridge.service/memory.max": "268435456\n",
		}, 256 * mib},
		{"version 2, a limit above", map[string]string{
			"proc/self/cgroup": "0::/system.slice/bridge.service\n",
			"sys/fs/cgroup/system.slice/bridge.service/memory.max":     "max\n",
			"sys/fs/cgroup/system.slice/memory.max":                    "134217728\n",
			"sys/fs/cgroup/system.slice/other.service/memory.max":      "1048576\n",
			"sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes":  "1048576\n",
			"sys/fs/cgroup/system.slice/bridge.service/memory.current": "1048576\n",
		}, 128 * mib},
		{"version 2, a smaller limit above", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "268435456\n", "sys/fs/cgroup/a/memory.max": "134217728\n",
		}, 128 * mib},
		{"version 2, a path that the container does not see", map[string]string{
			"proc/self/cgroup": "0::/kubepods/pod1/container1\n", "sys/fs/cgroup/memory.max": "268435456\n",
		}, 256 * mib},
		{"version 2, a path outside of the name space", map[string]string{
			"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/memory.max": "268435456\n",
		}, 256 * mib},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n1:name=systemd:/docker/1\n0::/\n",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes":   "536870912\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":            none,
			"sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us":   "1\n",
			"sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes":   "1\n",
			"sys/fs/cgroup/memory/docker/1/memory.soft_limit_bytes": "1\n",
		}, 512 * mib},
		{"version 1, a container", map[string]string{
			"proc/self/cgroup": "4:hugetlb,memory:/docker/1\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
		}, 512 * mib},
		{"version 1, without a limit", map[string]string{
			"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": none,
		}, 0},
		{"no number", map[string]string{"proc/self/cgroup": "0::/\nx\n::\n", "sys/fs/cgroup/memory.max": "-1\n"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, content := range tt.files {
				root[name] = &fstest.MapFile{Data: []byte(content)}
			}
			if got := controlGroupLimit(root); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestMachineMemory(t *testing.T) {
	for content, want := range map[string]int64{
		"MemTotal:       24683760 kB\nMemFree:        20000000 kB\n": 24683760 << 10,
		"MemFree:        20000000 kB\n":                              0,
		"":                                                           0,
	} {
		if got := machineMemory(fstest.MapFS{"proc/meminfo": {Data: []byte(content)}}); got != want {
			t.Errorf("%q: got %d, want %d", content, got, want)
		}
	}
}

func TestHeapWithin(t *testing.T) {
	const mib = 1 << 20
	for limit, want := range map[int64]int64{1000 * mib: 900 * mib, 512 * mib: 483183821, 128 * mib: 96 * mib, 64 * mib: 32 * mib, 32 * mib: 16 * mib} {
		if got := heapWithin(limit); got != want {
			t.Errorf("%d: got %d, want %d", limit, got, want)
		}
	}
}

// What the environment says goes before the control group, and that before the machine.
func TestLimitMemory(t *testing.T) {
	const gib = 1 << 30
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	machine := &fstest.MapFile{Data: []byte("MemTotal:       2097152 kB\n")}
	group := &fstest.MapFile{Data: []byte("0::/\n")}
	limit := &fstest.MapFile{Data: []byte("1073741824\n")}
	for _, tt := range []struct {
		name    string
		environ []string
		root    fstest.MapFS
		want    int64
	}{
		{"a control group", []string{"GOMEMLIMIT="}, fstest.MapFS{"proc/meminfo": machine, "proc/self/cgroup": group, "sys/fs/cgroup/memory.max": limit}, heapWithin(gib)},
		{"a machine", nil, fstest.MapFS{"proc/meminfo": machine, "proc/self/cgroup": group}, gib},
		{"the environment", []string{"GOMEMLIMIT=1TiB"}, fstest.MapFS{"proc/meminfo": machine, "proc/self/cgroup": group, "sys/fs/cgroup/memory.max": limit}, 12345},
		{"nothing", nil, fstest.MapFS{}, 12345},
	} {
		debug.SetMemoryLimit(12345)
		limitMemory(tt.environ, tt.root)
		if got := debug.SetMemoryLimit(before); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestBounds(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name        string
		maxInflight int
		maxBody     size
		memory      int64
		files       uint64
		want        bounds
	}{
		{"plenty", 4096, 384 << 10, math.MaxInt64, 1 << 20, bounds{8192, 64 * mib}},
		{"files", 4096, 384 << 10, math.MaxInt64, 1024, bounds{768, 64 * mib}},
		{"a container of 512 MiB", 4096, 384 << 10, 460 * mib, 1 << 20, bounds{2453, 60293120}},
		{"a container of 128 MiB", 4096, 384 << 10, 115 * mib, 1 << 20, bounds{613, 15073280}},
		{"large bodies", 4096, 16 * mib, 115 * mib, 1 << 20, bounds{613, 32 * mib}},
		{"many in flight", 100_000, 384 << 10, math.MaxInt64, 1 << 20, bounds{200_000, 64 * mib}},
		{"few in flight", 8, 384 << 10, math.MaxInt64, 1 << 20, bounds{1024, 64 * mib}},
		{"next to nothing", 8, 384 << 10, 0, 3, bounds{16, 768 << 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := boundsFor(&Config{MaxInflight: tt.maxInflight, MaxBody: tt.maxBody}, tt.memory, tt.files)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
