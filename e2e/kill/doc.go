// Package kill proves that nothing is lost, doubled, oversold or stuck while services and servers are killed under load.
//
//	make kill
//
// The platform runs on this machine without a cluster. Clients place orders, each under a key of its own, and ask with the same
// key until they are told; meanwhile order-api, payment-service, RabbitMQ and PostgreSQL are killed with SIGKILL, five times each,
// and started again. Then what the clients were told is held against what the database has. The moments come from a seed,
// which is printed; KILL_SEED=N repeats one.
package kill
