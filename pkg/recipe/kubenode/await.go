package main

import (
	"net"
	"os"
	"time"
)

const (
	awaited   = "KUBENODE_AWAIT" // the environment's name for an address
	longest   = 10 * time.Second
	lookAgain = 5 * time.Millisecond
)

// await returns when the address that the environment names takes connections, at once where it names none. etcd and the API server
// are started in the same moment, and an API server whose etcd refuses it does nothing for a whole second; nor does a kube-proxy whom the
// API server refuses. One that is not there in time is for who needs it to tell of.
func await() {
	address := os.Getenv(awaited)
	for over := time.Now().Add(longest); address != "" && time.Now().Before(over); time.Sleep(lookAgain) {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_ = conn.Close() // nothing was said
			return
		}
	}
}
