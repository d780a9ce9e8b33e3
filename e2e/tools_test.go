//go:build e2e

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// status is what `platformctl status -o json` says.
type status struct {
	Cluster  string `json:"cluster"`
	State    string `json:"state"`
	API      string `json:"api"`
	Ready    bool   `json:"ready"`
	Releases []struct {
		Name     string `json:"name"`
		Revision int    `json:"revision"`
		Status   string `json:"status"`
	} `json:"releases"`
	Pods []struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
		Ready     bool   `json:"ready"`
	} `json:"pods"`
	CacheBytes int64 `json:"cacheBytes"`
}

// show is what `platformctl shows -o json` says of one.
type show struct {
	ShowID   int    `json:"showId"`
	Name     string `json:"name"`
	Capacity int    `json:"capacity"`
	Free     int    `json:"free"`
	Held     int    `json:"held"`
	Sold     int    `json:"sold"`
}

func (s *scenario) shows() []show {
	s.t.Helper()
	var shows []show
	s.platformctl("shows", "-o", "json").ends(0).decodes(&shows)
	for _, sh := range shows {
		if sh.Free+sh.Held+sh.Sold != sh.Capacity || sh.Free < 0 || sh.Held < 0 || sh.Sold < 0 {
			s.t.Errorf("the seats of show %d do not add up: %+v", sh.ShowID, sh)
		}
	}
	return shows
}

func tools(s *scenario) {
	s.platform()
	s.check("shows lists the shows with seats free, held and sold", func(s *scenario) {
		s.platformctl("shows").ends(0).says("Rock Festival 2025", "Tech Conference Keynote", "Standup Night", "FREE", "HELD", "SOLD")
		before := s.shows()
		o := s.ended(s.places(2, 5))
		after := s.shows()
		sold := 0
		if o.Status == "CONFIRMED" {
			sold = 5
		}
		if len(before) != 3 || len(after) != 3 || after[1].Sold != before[1].Sold+sold || after[1].Free != before[1].Free-sold {
			s.t.Errorf("an order for 5 seats ended %s; the shows were\n%+v\nand are\n%+v", o.Status, before, after)
		}
	})
	s.check("status shows the cluster, the releases, the pods and the API", func(s *scenario) {
		s.platformctl("status").ends(0).says(clusterName, "http://", apiPort, "order-api", "payment-service", "postgresql-0", "rabbitmq-0")
		var st status
		s.platformctl("status", "--wait", "-o", "json").ends(0).decodes(&st)
		if st.Cluster != clusterName || st.State != "running" || !st.Ready || !strings.HasSuffix(st.API, ":"+apiPort) || len(st.Releases) != 4 || len(st.Pods) < 4 || st.CacheBytes <= 0 {
			s.t.Errorf("it says %+v", st)
		}
		for _, r := range st.Releases {
			if r.Status != "deployed" || r.Revision < 1 {
				s.t.Errorf("release %+v", r)
			}
		}
	})
	for _, names := range []string{
		"order", "payment", "rabbitmq", "postgres", "order-api", "payment-service", "rabbit", "postgresql", "order payment", "",
	} {
		s.check("logs "+names, func(s *scenario) {
			r := s.platformctl(append([]string{"logs", "--tail", "5"}, strings.Fields(names)...)...).ends(0)
			if strings.TrimSpace(r.stdout) == "" {
				s.t.Error("there is no line")
			}
		})
	}
	s.check("logs -f shows what comes until it is interrupted", func(s *scenario) {
		p := s.starts(binary, "logs", "-f", "--tail", "1", "rabbitmq", "order")
		s.until(10*time.Second, func() string {
			if p.said.String() == "" {
				return "it says nothing"
			}
			return ""
		})
		s.interrupt(p)
		s.awaits(p, 10*time.Second).ends(130)
	})
	s.check("psql runs one statement", func(s *scenario) {
		s.platformctl("psql", "-c", "SELECT name FROM shows WHERE id = 3").ends(0).says("Standup Night").never("assword")
	})
	s.check("psql ends with psql's exit code", func(s *scenario) {
		s.platformctl("psql", "-c", "SELECT * FROM nothing_of_the_kind").ends(1).says("nothing_of_the_kind")
	})
	s.check("psql takes statements from a pipe", func(s *scenario) {
		s.types("echo 'SELECT 6*7 AS answer;' | " + binary + " psql").ends(0).says("42")
	})
	s.check("kubeconfig names a file of the platform's own, for its owner alone", func(s *scenario) {
		path := strings.TrimSpace(s.platformctl("kubeconfig", "--path").ends(0).stdout)
		if path == s.kubeconfig {
			s.t.Error("it is the user's")
		}
		info, err := os.Stat(path)
		if err != nil {
			s.t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			s.t.Errorf("its mode is %v", info.Mode())
		}
		s.types("kubectl get nodes", "KUBECONFIG="+path).ends(0).says(node)
		s.platformctl("kubeconfig").ends(0).says("apiVersion: v1", contextName)
	})
	s.check("images tells what the cache holds", func(s *scenario) {
		if got := s.cached(); !slices.Contains(got, "order-api") || !slices.Contains(got, "payment-service") {
			s.t.Errorf("the cache holds %q", got)
		}
	})
	s.check("doctor finds nothing that a running platform lacks", func(s *scenario) {
		s.platformctl("doctor").ends(0)
	})
	s.check("all images are carried in one file to a cache that is empty, and an altered file is refused", func(s *scenario) {
		dir := s.t.TempDir()
		file, empty := filepath.Join(dir, "images.tar"), "PLATFORMCTL_CACHE="+filepath.Join(dir, "cache")
		s.platformctl("images", "save", file).ends(0).says("Saved to ")
		s.types("cp " + file + " " + file + ".altered && printf x | dd of=" + file + ".altered bs=1 seek=40000000 conv=notrunc status=none").ends(0)
		s.types(binary+" images load "+file+".altered", empty).ends(1).says("it is no whole bundle of images", "nothing was taken from it")
		s.types(binary+" images ls -o json", empty).ends(0).never(`"where": "cache"`)
		s.types(binary+" images load "+file, empty).ends(0).says("node", "postgresql", "rabbitmq", "order-api", "payment-service", "loaded")
		// Whoever has loaded it has nothing to make: all that up would look for is there.
		s.types(binary+" images prune --dry-run --parts -o json", empty).ends(0).never(`"where": "cache"`)
		s.types(binary+" images save "+file+".again", empty).ends(0)
	})
	s.check("doctor tells what a killed run left in the cache, and prune takes it away", func(s *scenario) {
		cache := s.t.TempDir()
		mine, left := "PLATFORMCTL_CACHE="+cache, filepath.Join(cache, "images", "node-1.work", "half")
		if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o755), os.WriteFile(left, make([]byte, 3_000_000), 0o644)); err != nil {
			s.t.Fatal(err)
		}
		s.types(binary+" doctor", mine).ends(0).says("platform/caches", "3 MB", "images prune")
		s.types(binary+" images prune", mine).ends(0)
		s.types(binary+" doctor", mine).ends(0).never("platform/caches")
	})
	s.check("version and help answer", func(s *scenario) {
		s.platformctl("version").ends(0)
		s.platformctl("help").ends(0).says("up", "order", "down")
	})
}

// cached are the names of the images in the cache, without registry and tag.
func (s *scenario) cached() (names []string) {
	s.t.Helper()
	var images []struct {
		Ref string `json:"ref"`
	}
	s.platformctl("images", "ls", "-o", "json").ends(0).decodes(&images)
	for _, i := range images {
		name, _, _ := strings.Cut(i.Ref[strings.LastIndex(i.Ref, "/")+1:], ":")
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
