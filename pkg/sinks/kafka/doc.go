// Package kafka publishes events to Apache Kafka and reads them back.
//
// [Sink] does what Kafka's idempotent producer does, over the protocol layer of kafka-go: each partition has a lane
// with one request under way, what waits meanwhile leaves together with the next one, and a request whose outcome is
// not known is sent again with the same bytes and the same sequence until it is answered. So a hung or lost broker
// stores nothing twice. kafka.Writer of the same module has neither property, and waits before it sends.
//
// Kafka knows no ids of messages. A [Sink] reads its own topics from the dedup window's beginning, and follows them:
// the log itself is the index of ids, after a restart as well and for several bridges on one topic. Until it has read
// all that the topics hold, it accepts nothing. Two bridges that are given the same id at the same moment, within the
// time that a record of one takes to reach the other, both store it.
//
// Topics are created when they are missing and the settings allow it. Topics that exist are looked at and never
// altered: what does not fit is a warning that holds the command to run, and a part of what Ready returns.
package kafka
