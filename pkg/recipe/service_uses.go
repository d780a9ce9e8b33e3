package recipe

import "context"

// Uses are the keys under which the cache has, or will have, the parts of this checkout's images that take long to make, and what
// it noted of the services' sources. The images themselves are known by their recipes.
func (k *Kitchen) Uses(ctx context.Context, services ...string) (parts, notes []string, err error) {
	version, err := requirement(k.module(), "k8s.io/kubernetes")
	if err != nil {
		return nil, nil, err
	}
	programs, err := k.programsKey(ctx, version)
	if err != nil {
		return nil, nil, err
	}
	parts = []string{programs, nodeRoot().key(), postgresRoot().key(), rabbitRoot().key()}
	for _, name := range services {
		key, err := k.sourceKey(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		notes = append(notes, key)
	}
	return parts, notes, nil
}
