// Package schema is what the bridge knows of an event: it validates a delivery's body against the JSON Schemas
// of package schemas, normalizes it to a CloudEvent, and makes a dead letter of what cannot be one.
//
// It has nothing to do with HTTP routing, signatures or brokers.
package schema
