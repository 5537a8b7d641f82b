//go:build race

package cluster_test

// defaultSeeds is less under the race detector, which is slow.
const defaultSeeds = 4
