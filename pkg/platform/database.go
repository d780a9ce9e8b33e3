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
	password, err := p.ofPod(ctx, s, live, "POSTGRES_PASSWORD")
	if err != nil {
		return nil, err
	}
	return &Database{Password: password, Life: string(space.GetUID())}, nil
}

// Broker is what it takes to log in to the platform's broker as its administrator.
type Broker struct{ User, Password string }

// Broker finds the running platform's broker. Where the cluster does not run, or has none, that is a fault with exit code 3.
func (p *Platform) Broker(ctx context.Context) (b Broker, err error) {
	if _, err := p.running(ctx); err != nil {
		return b, err
	}
	s, err := FindService("rabbitmq")
	if err != nil {
		return b, err
	}
	live, err := p.kube.Get(ctx, s.object())
	if err != nil {
		return b, err
	}
	if live == nil {
		return b, p.notInstalled(s)
	}
	if b.User, err = p.ofPod(ctx, s, live, "RABBITMQ_USERNAME"); err != nil {
		return b, err
	}
	b.Password, err = p.ofPod(ctx, s, live, "RABBITMQ_PASSWORD")
	return b, err
}

// ofPod is the value of a variable that a service's pod has from a Secret, or as it stands.
func (p *Platform) ofPod(ctx context.Context, s Service, live *unstructured.Unstructured, variable string) (string, error) {
	value, secret, key := variableOf(live, variable)
	if secret == "" && value != "" {
		return value, nil
	}
	data, err := p.kube.Secret(ctx, s.Namespace, secret)
	if err != nil {
		return "", err
	}
	if len(data[key]) == 0 {
		return "", fault.New(fault.CodeFailed, "platformctl up"+p.flag(), "Secret %s/%s has no %q, which is %s of %s", s.Namespace, secret, key, variable, s.Release)
	}
	return string(data[key]), nil
}

// variableOf is the value of a variable of a workload's pods, or the Secret and the key in it that they have it from.
func variableOf(set *unstructured.Unstructured, name string) (value, secret, key string) {
	containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers") // of another form it has none
	for _, c := range containers {
		container, _ := c.(map[string]any)
		env, _, _ := unstructured.NestedSlice(container, "env")
		for _, e := range env {
			variable, _ := e.(map[string]any)
			if variable["name"] == name {
				value, _, _ = unstructured.NestedString(variable, "value")
				secret, _, _ = unstructured.NestedString(variable, "valueFrom", "secretKeyRef", "name")
				key, _, _ = unstructured.NestedString(variable, "valueFrom", "secretKeyRef", "key")
			}
		}
	}
	return value, secret, key
}

// Alone runs do under the cluster's lock, as a step of the name and for the cause.
func (p *Platform) Alone(ctx context.Context, on func(plan.Event), name, cause string, do func(context.Context, func(plan.Note)) error) (err error) {
	defer func() { err = errors.Join(err, p.lock.release()) }()
	step := always(name, cause, do)
	step.After, step.Timeout = []*plan.Step{p.lock.step()}, p.set.Timeout
	return plan.Run(ctx, on, step)
}
