package jetstream

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	bridgeUser      = "bridge"
	bridgeAccount   = "BRIDGE"
	consumerUser    = "consumer"
	consumerAccount = "CONSUMERS"

	// A sidecar has a handful of consumers. The limits bound what one that runs wild costs the bridge. The
	// number of consumers is per stream; it leaves room for ephemeral ones that a crash loop leaves behind.
	maxConnections           = 1024
	maxConsumerConns         = 512
	maxSubscriptions         = 4096
	maxConsumers             = 1000
	maxConsumerRequest       = 64 << 10
	maxMemoryStore           = 64 << 20 // for consumers that keep their state in memory
	maxDiskReserve     int64 = 64 << 20
)

var (
	prefixPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$`)
	streamPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
)

// options checks the config and makes the directory.
func (cfg *EmbeddedConfig) options() (*server.Options, error) {
	host, port, err := cfg.address()
	if err != nil {
		return nil, err
	}
	if !prefixPattern.MatchString(cfg.Prefix) || !streamPattern.MatchString(cfg.Stream) {
		return nil, fmt.Errorf("prefix %q (BRIDGE_NATS_SUBJECT_PREFIX) and stream %q (BRIDGE_NATS_STREAM) may hold letters, digits, - and _",
			cfg.Prefix, cfg.Stream)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("store directory (BRIDGE_DATA_DIR): %w", err)
	}
	maxStore, err := storeLimit(cfg.Dir, cfg.Reserve)
	if err != nil {
		return nil, fmt.Errorf("store directory (BRIDGE_DATA_DIR): %w", err)
	}
	opts := &server.Options{}
	if err := opts.ProcessConfigString(accounts(cfg.Prefix, cfg.Stream)); err != nil {
		return nil, err
	}
	opts.ServerName = "bridge"
	opts.Host, opts.Port, opts.DontListen = host, port, true // start listens, when all else is done
	opts.NoSigs = true
	opts.DisableJetStreamBanner = true
	opts.MaxConn, opts.MaxSubs, opts.MaxPayload = maxConnections, maxSubscriptions, cfg.MaxPayload
	opts.JetStream, opts.StoreDir = true, cfg.Dir
	// Lazily it syncs by itself every two minutes; what counts is when Sync is called.
	opts.SyncAlways = !cfg.Lazy
	opts.JetStreamMaxStore, opts.JetStreamMaxMemory = maxStore, maxMemoryStore
	return opts, nil
}

// address splits Addr and makes sure that strangers reach it only with a token or from this machine.
func (cfg *EmbeddedConfig) address() (host string, port int, err error) {
	host, service, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return "", 0, fmt.Errorf("BRIDGE_NATS_EMBEDDED_ADDR: %w", err)
	}
	number, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("BRIDGE_NATS_EMBEDDED_ADDR: %q is no port", service)
	}
	if ip, err := netip.ParseAddr(host); cfg.Token.IsZero() && host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
		return "", 0, fmt.Errorf("BRIDGE_NATS_EMBEDDED_ADDR %q can be reached from other machines: set BRIDGE_NATS_EMBEDDED_TOKEN, or use 127.0.0.1", cfg.Addr)
	}
	// Asked before the store is opened: most often it is another bridge that has the port.
	probe, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return "", 0, fmt.Errorf("BRIDGE_NATS_EMBEDDED_ADDR: %w", err)
	}
	if number == 0 {
		return host, server.RANDOM_PORT, probe.Close()
	}
	return host, int(number), probe.Close()
}

// storeLimit is how large the store may grow in bytes: what it has, and what is free but for what it leaves to
// others and to what the server does not count: indexes, consumer state, expired messages in blocks that are still
// in use. Within the limit a publish is refused at once, and accepted again when old events have expired; a disk
// that is really full shuts the stream until the next start.
func storeLimit(dir string, others int64) (int64, error) {
	free, _, err := space(dir)
	if err != nil {
		return 0, err
	}
	free -= min(others, free/2)
	var used int64
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			used += info.Size()
		}
		return err
	})
	return max(used+free-min(free/10, maxDiskReserve), 1), err
}

// space is how many bytes of the disk are free, and how many there are.
func space(dir string) (free, all int64, err error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, 0, fmt.Errorf("free space of %q: %w", dir, err)
	}
	block := int64(disk.Bsize) //nolint:unconvert // it has another type elsewhere than on Linux
	return int64(disk.Bavail) * block, int64(disk.Blocks) * block, nil
}

// accounts is the part of the server's configuration that keeps strangers out of the bridge's account. The
// two accounts share no subject but those listed: permissions within one account would not do, since the
// server does not check the reply subject of a request, and so its answer could be made an event.
func accounts(prefix, stream string) string {
	var exports, imports, mappings []string
	service := func(subject, response string) {
		exports = append(exports, fmt.Sprintf("{service: %q, response: %s}", subject, response))
		imports = append(imports, fmt.Sprintf("{service: {account: %s, subject: %q}}", bridgeAccount, subject))
	}
	service("$JS.API.INFO", "singleton")
	service("$JS.API.STREAM.NAMES", "singleton")
	service("$JS.API.STREAM.LIST", "singleton")
	for _, name := range []string{stream, stream + "_DEAD"} {
		for _, subject := range []string{
			"STREAM.INFO." + name, "STREAM.MSG.GET." + name,
			"CONSUMER.INFO." + name + ".*", "CONSUMER.NAMES." + name, "CONSUMER.LIST." + name, "CONSUMER.DELETE." + name + ".*",
		} {
			service("$JS.API."+subject, "singleton")
		}
		// One request, many answers.
		service("$JS.API.CONSUMER.MSG.NEXT."+name+".*", "stream")
		service("$JS.API.DIRECT.GET."+name, "stream")
		service("$JS.API.DIRECT.GET."+name+".>", "stream")
		service("$JS.ACK."+name+".>", "stream")
		for _, subject := range []string{"CONSUMER.CREATE." + name, "CONSUMER.CREATE." + name + ".>", "CONSUMER.DURABLE.CREATE." + name + ".*"} {
			exports = append(exports, fmt.Sprintf("{service: %q}", guardSubject+subject))
			imports = append(imports, fmt.Sprintf("{service: {account: %s, subject: %q}, to: %q}",
				bridgeAccount, guardSubject+subject, "$JS.API."+subject))
		}
	}
	for _, subject := range liveSubjects(prefix) {
		exports = append(exports, fmt.Sprintf("{stream: %q}", subject))
		imports = append(imports, fmt.Sprintf("{stream: {account: %s, subject: %q}}", bridgeAccount, subject))
		// An answer to a request whose reply subject looks like an event goes where nobody may subscribe,
		// not to the subscribers of live events.
		mappings = append(mappings, fmt.Sprintf("%q: %q", subject, "refused."+subject))
	}
	return fmt.Sprintf(`accounts {
  %s { jetstream: {max_consumers: %d}, exports: [%s] }
  %s { limits: {max_connections: %d, max_payload: %d}, mappings: {%s}, imports: [%s] }
}`, bridgeAccount, maxConsumers, strings.Join(exports, ", "),
		consumerAccount, maxConsumerConns, maxConsumerRequest, strings.Join(mappings, ", "), strings.Join(imports, ", "))
}

func liveSubjects(prefix string) []string { return []string{prefix + ".>", prefix + "-dead.>"} }
