package platform

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

// Database is what it takes to log in to the platform's database as its superuser.
type Database struct {
	Password string
	Life     string // another one for each time the database's namespace was made
}

// Database finds the running platform's database; nil where there is none. Where the cluster does not run, that is a fault with
// exit code 3.
func (p *Platform) Database(ctx context.Context) (*Database, error) {
	if _, err := p.running(ctx); err != nil {
		return nil, err
	}
	s, err := FindService("postgres")
	if err != nil {
		return nil, err
	}
	live, err := p.kube.Get(ctx, s.object())
	if err != nil || live == nil {
		return nil, err
	}
	space := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
	space.SetName(s.Namespace)
	if space, err = p.kube.Get(ctx, space); err != nil || space == nil {
		return nil, err
	}
	secret, key := superuserSecret(live)
	data, err := p.kube.Secret(ctx, s.Namespace, secret)
	if err != nil {
		return nil, err
	}
	if len(data[key]) == 0 {
		return nil, fault.New(fault.CodeFailed, "platformctl up"+p.flag(), "Secret %s/%s has no %q, the password of the database's superuser", s.Namespace, secret, key)
	}
	return &Database{Password: string(data[key]), Life: string(space.GetUID())}, nil
}

// superuserSecret names the Secret and the key in it that the database's pod has the superuser's password from.
func superuserSecret(set *unstructured.Unstructured) (name, key string) {
	containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers") // of another form it has none
	for _, c := range containers {
		container, _ := c.(map[string]any)
		env, _, _ := unstructured.NestedSlice(container, "env")
		for _, e := range env {
			variable, _ := e.(map[string]any)
			if variable["name"] == "POSTGRES_PASSWORD" {
				name, _, _ = unstructured.NestedString(variable, "valueFrom", "secretKeyRef", "name")
				key, _, _ = unstructured.NestedString(variable, "valueFrom", "secretKeyRef", "key")
			}
		}
	}
	return name, key
}

// Alone runs do under the cluster's lock, as a step of the name and for the cause.
func (p *Platform) Alone(ctx context.Context, on func(plan.Event), name, cause string, do func(context.Context, func(plan.Note)) error) (err error) {
	defer func() { err = errors.Join(err, p.lock.release()) }()
	step := always(name, cause, do)
	step.After, step.Timeout = []*plan.Step{p.lock.step()}, p.set.Timeout
	return plan.Run(ctx, on, step)
}
