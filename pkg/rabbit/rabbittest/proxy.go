package rabbittest

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Proxy stands between a client and a server, of whatever kind, and makes their faults.
type Proxy struct {
	target   string
	listener net.Listener

	mu     sync.Mutex
	away   bool
	armed  bool // the next answer is cut off
	conns  map[net.Conn]struct{}
	closed bool
}

// NewProxy makes a proxy in front of the server at the URL; it ends with the test.
func NewProxy(t testing.TB, address string) *Proxy {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: u.Host, listener: listener, conns: map[net.Conn]struct{}{}}
	var accepting sync.WaitGroup
	accepting.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		p.Cut()
		accepting.Wait()
	})
	return p
}

// URL is the URL with the proxy in the server's place.
func (p *Proxy) URL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err) // NewProxy has parsed one like it
	}
	u.Host = p.listener.Addr().String()
	return u.String()
}

// Cut breaks all connections that there are. New ones are let through.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close() // the other side may have been faster
	}
}

// CutAnswer breaks all connections as soon as the server says something: it has done what it was asked for, and the client
// does not know.
func (p *Proxy) CutAnswer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = true
}

// Armed tells whether CutAnswer has yet to happen.
func (p *Proxy) Armed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.armed
}

// Away breaks all connections and lets no new one through, until Back.
func (p *Proxy) Away() {
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	p.Cut()
}

// Back ends Away.
func (p *Proxy) Back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

func (p *Proxy) accept() {
	var copying sync.WaitGroup
	defer copying.Wait()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed with the test
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(client, server) {
			_ = client.Close()
			if server != nil {
				_ = server.Close()
			}
			continue
		}
		copying.Go(func() {
			_, _ = io.Copy(server, client) // ends with either connection, which is what it is for
			p.drop(client, server)
		})
		copying.Go(func() {
			_, _ = io.Copy(answers{p, client}, server)
			p.drop(client, server)
		})
	}
}

// answers is the way back to the client.
type answers struct {
	proxy  *Proxy
	client net.Conn
}

// Write implements io.Writer.
func (a answers) Write(b []byte) (int, error) {
	a.proxy.mu.Lock()
	cut := a.proxy.armed
	a.proxy.armed = false
	a.proxy.mu.Unlock()
	if cut {
		a.proxy.Cut()
		return 0, net.ErrClosed
	}
	return a.client.Write(b)
}

// keep notes a pair of connections, unless the server is away.
func (p *Proxy) keep(pair ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away || p.closed {
		return false
	}
	for _, c := range pair {
		p.conns[c] = struct{}{}
	}
	return true
}

func (p *Proxy) drop(pair ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range pair {
		_ = c.Close()
		delete(p.conns, c)
	}
}
