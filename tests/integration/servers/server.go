// The contract of tests/integration/test_exchange_servers.py in Go. go run server.go PORT
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	answer := func(path string, handler func(http.ResponseWriter, *http.Request, int64)) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			length, _ := io.Copy(io.Discard, r.Body)
			handler(w, r, length)
		})
	}
	answer("/count", func(w http.ResponseWriter, r *http.Request, length int64) {
		_, port, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%d %s", length, port)
	})
	answer("/chunked", func(w http.ResponseWriter, r *http.Request, _ int64) {
		io.WriteString(w, "part one, ")
		w.(http.Flusher).Flush()
		io.WriteString(w, "part two")
	})
	answer("/busy", func(w http.ResponseWriter, r *http.Request, _ int64) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(503)
	})
	answer("/none", func(w http.ResponseWriter, r *http.Request, _ int64) { w.WriteHeader(204) })
	answer("/gone", func(w http.ResponseWriter, r *http.Request, _ int64) {
		w.WriteHeader(410)
		io.WriteString(w, "gone")
	})
	answer("/moved", func(w http.ResponseWriter, r *http.Request, _ int64) {
		http.Redirect(w, r, "/count", http.StatusFound)
	})
	answer("/close", func(w http.ResponseWriter, r *http.Request, _ int64) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "bye")
	})
	answer("/hints", func(w http.ResponseWriter, r *http.Request, _ int64) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "hinted")
	})
	answer("/broken", func(w http.ResponseWriter, r *http.Request, _ int64) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "not a hundred")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	// Answers before it has read the request, as a handler does that refuses by its headers.
	http.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(413)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
