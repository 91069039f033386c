package jetstream

import "os"

// SyncAlways tells whether the server that runs syncs before every acknowledgement.
func (e *Embedded) SyncAlways() bool {
	config := e.node.srv.JetStreamConfig()
	return config != nil && config.SyncAlways
}

// OnFsync puts fsync in the place of the operating system's for the files of the store.
func (e *Embedded) OnFsync(fsync func(*os.File) error) {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	e.store.sync = fsync
}

// ClientURL is clientURL.
var ClientURL = clientURL

// StoreLimit is storeLimit.
var StoreLimit = storeLimit
