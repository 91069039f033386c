package kafka

var EventOf = eventOf
