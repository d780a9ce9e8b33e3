package platform

import (
	"slices"
	"strings"

	"platformctl/pkg/fault"
)

// Namespaces of the platform; existing users rely on these names, as on all others in this file.
const (
	NamespaceApps      = "apps"
	NamespaceMessaging = "messaging"
	NamespaceDatabase  = "database"
)

// Namespaces lists them all.
func Namespaces() []string { return []string{NamespaceApps, NamespaceDatabase, NamespaceMessaging} }

// Service is one of the four programs of the platform.
type Service struct {
	Name      string   // in a user's words: "payment"
	Others    []string // other words for it; the release is one
	Release   string   // its Helm release, chart folder and values file: "payment-service"
	Namespace string
	Kind      string // "Deployment" or "StatefulSet"
	Workload  string // the object of that kind
	Container string
	Ours      bool // built from cmd/<Release>; the others are servers
	Ports     []Port
}

// Port is a port of a service: its name in the Kubernetes Service, which is called like the workload, and its usual number.
type Port struct {
	Name   string
	Number int
}

// Services lists the four, servers first.
func Services() []Service {
	return []Service{
		{
			Name: "postgres", Others: []string{"postgresql"}, Release: "postgresql",
			Namespace: NamespaceDatabase, Kind: "StatefulSet", Workload: "postgresql", Container: "postgresql",
			Ports: []Port{{"postgresql", 5432}},
		},
		{
			Name: "rabbitmq", Others: []string{"rabbit"}, Release: "rabbitmq",
			Namespace: NamespaceMessaging, Kind: "StatefulSet", Workload: "rabbitmq", Container: "rabbitmq",
			Ports: []Port{{"amqp", 5672}, {"manager", 15672}},
		},
		{
			Name: "order", Others: []string{"order-api"}, Release: "order-api",
			Namespace: NamespaceApps, Kind: "Deployment", Workload: "order-api-order-api-chart", Container: "order-api-chart", Ours: true,
			Ports: []Port{{"http", 8080}},
		},
		{
			Name: "payment", Others: []string{"payment-service"}, Release: "payment-service",
			Namespace: NamespaceApps, Kind: "Deployment", Workload: "payment-service-payment-service-chart", Container: "payment-service-chart", Ours: true,
			Ports: []Port{{"http", 8081}},
		},
	}
}

// FindService is the service that a user calls name; an unknown one is a usage error that lists the known.
func FindService(name string) (Service, error) {
	var known []string
	for _, s := range Services() {
		if s.Name == name || slices.Contains(s.Others, name) {
			return s, nil
		}
		known = append(known, s.Name)
	}
	return Service{}, fault.Usage("use one of: "+strings.Join(known, ", "), "there is no service %q", name)
}

// FindOurs are the services of these names that are built from the checkout, each once; all of them where no name is given. A
// name that is none of them is a usage error that lists them.
func FindOurs(names ...string) ([]Service, error) {
	var ours, found []Service
	var known []string
	for _, s := range Services() {
		if s.Ours {
			ours, known = append(ours, s), append(known, s.Name)
		}
	}
	if len(names) == 0 {
		return ours, nil
	}
	cure := "use one of: " + strings.Join(known, ", ")
	for _, name := range names {
		s, err := FindService(name)
		switch {
		case err != nil:
			return nil, fault.Usage(cure, "%w", err)
		case !s.Ours:
			return nil, fault.Usage(cure+"\nwhat its chart and values say: platformctl up", "%s is not built from this checkout", s.Name)
		}
		if !slices.ContainsFunc(found, func(f Service) bool { return f.Name == s.Name }) {
			found = append(found, s)
		}
	}
	return found, nil
}

// DeadLetters is the broker's queue of what could not be handled.
const DeadLetters = "events.dlq.q"

// WorkQueues lists the other queues: what is in them is on its way.
func WorkQueues() []string {
	return []string{"payment.order-created.q", "order.payment-results.q", "payment.events.q"}
}
