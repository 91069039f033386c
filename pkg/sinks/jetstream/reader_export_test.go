package jetstream

var EventOf = eventOf
