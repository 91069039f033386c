package jetstream

// SyncAlways tells whether the server that runs syncs before every acknowledgement.
func (e *Embedded) SyncAlways() bool {
	config := e.srv.JetStreamConfig()
	return config != nil && config.SyncAlways
}

// ClientURL is clientURL.
var ClientURL = clientURL

// StoreLimit is storeLimit.
var StoreLimit = storeLimit
