// Command hereis is the one binary of the system: a node, a cluster for
// development, and the commands that ask a running node.
//
//	hereis node             one node
//	hereis dev              a cluster of nodes on this host
//	hereis where AOR        where a user is (WHEREIS)
//	hereis members          the nodes of the cluster
//	hereis send --to …      a message to a node, a user or all
//	hereis watch            users going online and offline
//	hereis version
//
// Exit codes: 0 ok, 1 error, 2 partial (some answered, some did not), 3 not
// found. Results go to stdout, everything else to stderr.
//
// Start with main.go; there is a file for each group of commands. dev.go says
// what a development cluster is, supervisor.go keeps its processes.
package main
