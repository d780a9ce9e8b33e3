package platform

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"platformctl/pkg/cluster"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
)

// Status is the platform's state at one moment.
type Status struct {
	Cluster  string          `json:"cluster"`
	State    string          `json:"state"` // absent, half, stopped, running, foreign
	API      string          `json:"api,omitempty"`
	Ready    bool            `json:"ready"` // every workload is complete and the API answers
	Why      string          `json:"why,omitempty"`
	Releases []ReleaseStatus `json:"releases"`
	Pods     []PodStatus     `json:"pods"`
	Cache    string          `json:"cache"`      // the folder
	CacheUse int64           `json:"cacheBytes"` // what the images in it take
}

// ReleaseStatus is one Helm release.
type ReleaseStatus struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Revision  int    `json:"revision"`
	Status    string `json:"status"` // Helm's word, or "absent"
}

// PodStatus is one pod.
type PodStatus struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Phase     string `json:"phase"`
	Ready     bool   `json:"ready"`
	Restarts  int    `json:"restarts"`
	Reason    string `json:"reason,omitempty"`  // why it is not ready
	Message   string `json:"message,omitempty"` // the sentence to it
	AgeSecs   int64  `json:"ageSeconds"`
}

// Status reports the platform's state. That the cluster does not run is no error.
func (p *Platform) Status(ctx context.Context) (Status, error) {
	status := Status{Cluster: p.set.Cluster, Cache: p.set.Cache, Releases: []ReleaseStatus{}, Pods: []PodStatus{}}
	cached, err := p.Images(ctx)
	if err != nil {
		return status, err
	}
	for _, c := range cached {
		status.CacheUse += c.Size
	}
	state, err := p.inspect(ctx)
	if err != nil {
		return status, err
	}
	status.State = string(state.Phase)
	if state.Phase != cluster.Running {
		status.Why = "cluster " + p.set.Cluster + " is " + string(state.Phase)
		if state.Why != "" {
			status.Why += ": " + state.Why
		}
		return status, nil
	}
	status.API, p.port = address(state.APIPort), state.APIPort
	if status.Why, err = p.connect(ctx, state); err != nil || status.Why != "" {
		return status, err
	}
	releases, err := p.releases(ctx)
	if err != nil {
		return status, err
	}
	for _, s := range Services() {
		r := ReleaseStatus{Name: s.Release, Namespace: s.Namespace, Status: "absent"}
		if found, ok := releases[s.Release]; ok {
			r.Revision, r.Status = found.Revision, found.Status
		}
		status.Releases = append(status.Releases, r)
	}
	for _, namespace := range Namespaces() {
		pods, err := p.kube.Pods(ctx, namespace, "")
		if err != nil {
			return status, err
		}
		for _, pod := range pods {
			status.Pods = append(status.Pods, PodStatus{
				Namespace: pod.Namespace, Name: pod.Name, Phase: pod.Phase, Ready: pod.Ready, Restarts: pod.Restarts,
				Reason: pod.Reason, Message: pod.Message, AgeSecs: int64(time.Since(pod.Created).Seconds()),
			})
		}
	}
	status.Why, err = p.notReady(ctx)
	status.Ready = err == nil && status.Why == ""
	return status, err
}

// notReady tells what the running platform lacks, "" when it is ready.
func (p *Platform) notReady(ctx context.Context) (why string, err error) {
	if why, err := p.notRolledOut(ctx); err != nil || why != "" {
		return why, err
	}
	return p.apiAnswers(ctx)
}

// notRolledOut names a workload that is not complete, "" when all are.
func (p *Platform) notRolledOut(ctx context.Context) (why string, err error) {
	for _, s := range Services() {
		done, why, err := p.kube.Rollout(ctx, s.workload())
		if err != nil || !done {
			return s.workload().String() + ": " + why, err
		}
	}
	return "", nil
}

func (s Service) workload() kube.Workload {
	return kube.Workload{Kind: s.Kind, Namespace: s.Namespace, Name: s.Workload}
}

// object is the workload by name alone, to be asked for.
func (s Service) object() *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": s.Kind}}
	o.SetNamespace(s.Namespace)
	o.SetName(s.Workload)
	return o
}

// AwaitReady returns when the running platform is ready, noting what it waits for. It gives up after some minutes.
func (p *Platform) AwaitReady(ctx context.Context, on func(plan.Event)) error {
	state, err := p.running(ctx)
	if err != nil {
		return err
	}
	p.port = state.APIPort
	return plan.Run(ctx, on, p.apiStep(p.podsStep()))
}
