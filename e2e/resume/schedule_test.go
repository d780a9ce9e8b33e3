package resume

import (
	"math/rand/v2"
	"slices"
	"testing"
)

const kills = 30

// Where a command begins.
const (
	nothing  = "no cluster"
	halfMade = "what the kill before left"
	altered  = "complete, but for"
	complete = "complete"
)

// What a kill hits.
const (
	itself    = "platformctl"
	itsGroup  = "its process group"
	itsTree   = "all that it started too"
	theNode   = "the node"
	nodeAndIt = "the node and platformctl"
	theEngine = "the engine"
)

// blow is one kill, as the seed has it.
type blow struct {
	start   string
	command string  // of platformctl; "" where none is at work
	victim  string  // one of the above
	share   float64 // of the time that the command takes undisturbed, when it is hit
	change  int     // altered: which of the changes
}

// schedule draws the kills in a random order. changes is how many ways there are to alter a complete platform; each comes once.
func schedule(seed uint64, changes int, engine bool) []blow {
	draw := rand.New(rand.NewPCG(seed, 0))
	moment := func() float64 { return draw.Float64() * 1.1 }
	ours := func() string { return []string{itself, itsGroup, itsTree}[draw.IntN(3)] }
	var starts []blow
	for range 3 {
		starts = append(starts, blow{nothing, "up", ours(), moment(), 0})
	}
	for i := range changes {
		starts = append(starts, blow{altered, "up", ours(), moment(), i})
	}
	for _, victim := range []string{theNode, nodeAndIt} {
		starts = append(starts, blow{altered, "up", victim, moment(), draw.IntN(changes)})
	}
	for _, command := range []string{"down", "stop", "cleanup"} {
		starts = append(starts, blow{complete, command, ours(), moment(), 0})
	}
	starts = append(starts, blow{complete, "", theNode, moment(), 0})
	if engine {
		starts = append(starts, blow{altered, "up", theEngine, moment(), draw.IntN(changes)})
	}
	draw.Shuffle(len(starts), func(i, j int) { starts[i], starts[j] = starts[j], starts[i] })
	// What is left of the 30 is done to ups that begin with what a kill has left, most of them where most is to be done.
	var deep, others []int
	for i, b := range starts {
		if b.start == nothing || b.command == "down" {
			deep = append(deep, i)
		} else if b.command == "up" {
			others = append(others, i)
		}
	}
	again := make([]int, len(starts))
	for n := range kills - len(starts) {
		from := deep
		if n%3 == 2 {
			from = others
		}
		again[from[draw.IntN(len(from))]]++
	}
	var all []blow
	for i, b := range starts {
		all = append(all, b)
		for range again[i] {
			all = append(all, blow{halfMade, "up", ours(), moment(), 0})
		}
	}
	return all
}

func TestTheScheduleIsTheSeeds(t *testing.T) {
	const changes = 13
	for seed := range uint64(50) {
		for _, engine := range []bool{false, true} {
			all := schedule(seed, changes, engine)
			if !slices.Equal(all, schedule(seed, changes, engine)) {
				t.Fatalf("seed %d has two schedules", seed)
			}
			if len(all) != kills || all[0].start == halfMade {
				t.Fatalf("seed %d: %d kills, the first of %q", seed, len(all), all[0].start)
			}
			done := map[int]bool{}
			hit := map[string]int{}
			for _, b := range all {
				if b.share < 0 || b.share > 1.1 {
					t.Fatalf("seed %d: %+v", seed, b)
				}
				if b.start == altered {
					done[b.change] = true
				}
				hit[b.victim]++
			}
			if len(done) != changes || hit[theNode]+hit[nodeAndIt] != 3 || hit[theEngine] > 0 != engine {
				t.Fatalf("seed %d: %d changes, hit %v", seed, len(done), hit)
			}
		}
	}
	if slices.Equal(schedule(1, changes, false), schedule(2, changes, false)) {
		t.Error("two seeds have the same schedule")
	}
}
