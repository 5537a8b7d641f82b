// Package admin is the HTTP+JSON API of one node, for people, scripts and
// monitoring. It is on loopback by default and has no authentication: whoever
// reaches it may use it.
//
//	GET  /v1/where/{aor}     all that is known of a user (WHEREIS)
//	GET  /v1/members         the nodes of the cluster, as this one knows them
//	POST /v1/send            a message of any registered type, to a node, a user or all
//	GET  /v1/watch?pattern=  users going online and offline, as lines of JSON or as SSE
//	GET  /v1/aors?pattern=&cursor=&limit=  users online, as lines of JSON; the last is {"end":…}
//	GET  /v1/count?pattern=  how many, per node and in all
//	GET  /v1/aor/{aor}       where, and what a call would do now
//	DELETE /v1/aor/{aor}     removes all bindings; ?binding=KEY or CONTACT: one
//	GET  /v1/version         this node
//	GET  /healthz, /readyz   alive; serving
//	GET  /metrics            Prometheus
//	GET  /debug/pprof/       when enabled
//
// An error is {"error": "…"} with a status that says whose fault it was. Times
// are RFC 3339 in UTC, lifetimes seconds.
//
// The package knows a node only as the interface Node. Start with server.go;
// the answers' forms are in view.go.
package admin
