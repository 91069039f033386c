package main

import (
	"fmt"
	"math/rand/v2"
	"net"
)

func addr(port int) string { return fmt.Sprint("127.0.0.1:", port) }

// freePorts finds ports below those that the system gives to connections, so that they stay free while nobody listens.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 1000 { // none is drawn twice, for each is listened on until all are there
		port := 10_000 + rand.IntN(22_000)
		l, err := net.Listen("tcp", addr(port))
		if err != nil {
			continue
		}
		defer l.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports", n)
}
