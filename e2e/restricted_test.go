//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
)

// container is what is read of a container's specification.
type container struct {
	Name           string          `json:"name"`
	StartupProbe   json.RawMessage `json:"startupProbe"`
	ReadinessProbe json.RawMessage `json:"readinessProbe"`
	LivenessProbe  json.RawMessage `json:"livenessProbe"`
	Resources      struct {
		Requests map[string]string `json:"requests"`
		Limits   map[string]string `json:"limits"`
	} `json:"resources"`
	SecurityContext struct {
		ReadOnlyRootFilesystem   bool  `json:"readOnlyRootFilesystem"`
		AllowPrivilegeEscalation *bool `json:"allowPrivilegeEscalation"`
		RunAsNonRoot             bool  `json:"runAsNonRoot"`
		RunAsUser                int   `json:"runAsUser"`
		Capabilities             struct {
			Drop []string `json:"drop"`
		} `json:"capabilities"`
	} `json:"securityContext"`
}

type pod struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		AutomountServiceAccountToken *bool       `json:"automountServiceAccountToken"`
		Containers                   []container `json:"containers"`
		InitContainers               []container `json:"initContainers"`
		SecurityContext              struct {
			RunAsNonRoot   bool `json:"runAsNonRoot"`
			RunAsUser      int  `json:"runAsUser"`
			SeccompProfile struct {
				Type string `json:"type"`
			} `json:"seccompProfile"`
		} `json:"securityContext"`
	} `json:"spec"`
}

// faults lists what the pod lacks of what every pod of the platform must have.
func (p pod) faults() (faults []string) {
	need := func(ok bool, what string, args ...any) {
		if !ok {
			faults = append(faults, p.Metadata.Namespace+"/"+p.Metadata.Name+": "+fmt.Sprintf(what, args...))
		}
	}
	need(p.Spec.SecurityContext.SeccompProfile.Type == "RuntimeDefault", "no seccomp profile")
	token := p.Spec.AutomountServiceAccountToken
	need(token != nil && !*token, "it has a service account's token")
	for i, c := range append(p.Spec.Containers, p.Spec.InitContainers...) {
		security := c.SecurityContext
		need(security.ReadOnlyRootFilesystem, "%s can write to its root file system", c.Name)
		need(security.AllowPrivilegeEscalation != nil && !*security.AllowPrivilegeEscalation, "%s may gain privileges", c.Name)
		need(len(security.Capabilities.Drop) == 1 && security.Capabilities.Drop[0] == "ALL", "%s keeps capabilities", c.Name)
		need(security.RunAsNonRoot || p.Spec.SecurityContext.RunAsNonRoot, "%s may run as root", c.Name)
		need(security.RunAsUser > 0 || p.Spec.SecurityContext.RunAsUser > 0, "%s has no user of its own", c.Name)
		need(c.Resources.Requests["cpu"] != "" && c.Resources.Requests["memory"] != "", "%s lacks requests", c.Name)
		need(c.Resources.Limits["memory"] != "", "%s has no memory limit", c.Name)
		need(c.Resources.Limits["cpu"] == "", "%s has a CPU limit, which makes orders wait", c.Name)
		if i < len(p.Spec.Containers) {
			need(c.StartupProbe != nil && c.ReadinessProbe != nil && c.LivenessProbe != nil, "%s lacks one of the three probes", c.Name)
		}
	}
	return faults
}

func restricted(s *scenario) {
	s.platform()
	for _, namespace := range []string{"apps", "database", "messaging"} {
		s.check("namespace "+namespace+" enforces restricted", func(s *scenario) {
			var ns struct {
				Metadata meta `json:"metadata"`
			}
			s.kubectl("get", "namespace", namespace, "-o", "json").ends(0).decodes(&ns)
			if got := ns.Metadata.Labels["pod-security.kubernetes.io/enforce"]; got != "restricted" {
				s.t.Errorf("its label says %q", got)
			}
		})
		s.check("the pods in "+namespace+" run as nobody in particular, on a root file system that they cannot write to", func(s *scenario) {
			var list struct {
				Items []pod `json:"items"`
			}
			s.kubectl("get", "pods", "-n", namespace, "-o", "json").ends(0).decodes(&list)
			if len(list.Items) == 0 {
				s.t.Error("there are none")
			}
			for _, p := range list.Items {
				for _, fault := range p.faults() {
					s.t.Error(fault)
				}
			}
		})
	}
	s.check("the broker keeps within its gigabyte, and starts no second Erlang machine every minute", func(s *scenario) {
		const asked = `Sizes = fun(Kind) -> {Kind, Of} = lists:keyfind(Kind, 1, erlang:system_info({allocator, erts_mmap})),
				proplists:get_value(sizes, proplists:get_value(supercarrier, Of)) end,
			{whereis(rabbit_epmd_monitor), application:get_env(ra, wal_max_size_bytes), proplists:get_value(total, Sizes(default_mmap))}.`
		s.kubectl("exec", "-n", "messaging", "rabbitmq-0", "--", "rabbitmqctl", "--silent", "eval", asked).ends(0).
			says(fmt.Sprintf("{undefined,{ok,%d},%d}", 64<<20, 256<<20))
	})
	s.check("a pod that is not restricted is refused", func(s *scenario) {
		r := s.types("kubectl -n apps run intruder --image=platformctl.local/none --image-pull-policy=Never --privileged")
		if r.says("violates PodSecurity").code == 0 {
			s.t.Error("it was let in")
		}
	})
}
