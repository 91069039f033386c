// Package jetstream publishes events to NATS JetStream and reads them back.
//
// [Sink] keeps one connection for as long as it lives: it starts without a broker, reconnects, heals when a wrong
// password is mended, and dials anew when a connection was closed for good. Nothing is buffered while there is no
// connection. Two streams take what it publishes, one for events and one for dead letters. They are created when
// they are missing; streams that exist are looked at and never altered. What does not fit is a warning that holds
// the command to run, and a part of what Ready returns.
//
// One thing cannot be seen: whether the server syncs a message to its disk before it acknowledges it. By default
// JetStream syncs every two minutes, so a power failure may lose acknowledged events of a stream with one replica.
// A server says how often it syncs (config.sync_interval, config.sync_always of JSZ) only in its system account and
// on its monitoring port; the account of an ordinary user has neither (nats-server 2.15: CONNZ, STATZ and USER.INFO
// are all that it imports). Set "jetstream { sync_interval: always }" there, or use three replicas.
package jetstream
