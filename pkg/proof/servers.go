package proof

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"platformctl/pkg/contract"
	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
)

// Exec runs a program beside a server, in its container, and returns what it printed on standard output. A program that ended
// with another code than 0 is an error, with what it said.
type Exec func(ctx context.Context, argv ...string) ([]byte, error)

// Pod is where a server of the platform runs.
type Pod struct{ Namespace, Name, Container string }

// InPod is Exec for a pod's container.
func InPod(client *kube.Client, pod Pod) Exec {
	return func(ctx context.Context, argv ...string) ([]byte, error) {
		var out, said bytes.Buffer
		code, err := client.Exec(ctx, kube.Exec{Namespace: pod.Namespace, Pod: pod.Name, Container: pod.Container, Argv: argv, Stdout: &out, Stderr: &said})
		if err != nil {
			return nil, fault.New(fault.CodeOf(err), "platformctl status", "%w", err)
		}
		if code != 0 {
			return nil, fmt.Errorf("%s in pod %s/%s ended with %d: %s", argv[0], pod.Namespace, pod.Name, code, strings.TrimSpace(said.String()))
		}
		return out.Bytes(), nil
	}
}

// Psql is the database by psql on the server's own socket, where no password is asked.
type Psql struct {
	Exec Exec
	User string // "" is the database's owner
}

// JSON implements Database. It can read only.
func (p Psql) JSON(ctx context.Context, statement string) ([]byte, error) {
	return p.run(ctx, "-c default_transaction_read_only=on", statement)
}

// Do runs a statement that changes something, and returns the first column of what it returns, a line a row.
func (p Psql) Do(ctx context.Context, statement string) ([]byte, error) {
	return p.run(ctx, "", statement)
}

func (p Psql) run(ctx context.Context, options, statement string) ([]byte, error) {
	user := p.User
	if user == "" {
		user = "postgresdb"
	}
	out, err := p.Exec(ctx, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-d", "dbname=postgresdb user="+user+" application_name=platformctl options='"+options+"'", "-c", statement)
	if err != nil {
		return nil, fmt.Errorf("ask the database: %w", err)
	}
	return bytes.TrimSpace(out), nil
}

// Rabbitmqctl is the broker by its own command. "rabbitmqctl list_queues" and the management API tell of a quorum queue what
// its last tick measured, up to five seconds ago; a question to the queue's leader is exact. The price is the start of one
// Erlang machine, some 0.7 s.
type Rabbitmqctl struct {
	Exec  Exec
	VHost string
}

// %s are the virtual host and the names to look at. Every line that counts begins with "queue", for the command says other things too.
const listQueues = `
lists:foreach(fun(Q) ->
  {resource, _, queue, Name} = amqqueue:get_name(Q),
  {Ready, Unacked} = case amqqueue:get_type(Q) of
    rabbit_quorum_queue ->
      {ok, #{num_ready_messages := R, num_checked_out := C}, _} =
        ra:consistent_query(amqqueue:get_pid(Q), fun(S) -> rabbit_fifo:overview(S) end),
      {R, C};
    _ ->
      I = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]),
      {proplists:get_value(messages_ready, I, 0), proplists:get_value(messages_unacknowledged, I, 0)}
  end,
  io:format("queue ~b ~b ~ts~n", [Ready, Unacked, Name])
end, [Q || Q <- rabbit_amqqueue:list(<<"%s">>), lists:member(element(4, amqqueue:get_name(Q)), [%s])]).`

// Queues implements Broker, for the queues of the platform's contract. One that is not declared is not in the list.
func (r Rabbitmqctl) Queues(ctx context.Context) ([]Queue, error) {
	var names []string
	for _, q := range []string{contract.QueueOrderCreated, contract.QueuePaymentResults, contract.QueuePaymentEvents, contract.QueueDeadLetters} {
		names = append(names, `<<"`+q+`">>`)
	}
	out, err := r.Exec(ctx, "rabbitmqctl", "--silent", "eval", fmt.Sprintf(listQueues, r.VHost, strings.Join(names, ", ")))
	if err != nil {
		return nil, fmt.Errorf("ask the broker: %w", err)
	}
	queues, err := parseQueues(out)
	if err != nil {
		return nil, fmt.Errorf("ask the broker: %w", err)
	}
	return queues, nil
}

// A quorum queue is read by position, and nothing of it is taken; any other kind is not read. A message without an id or a reason
// has "" there. %[1]s is the virtual host, %[2]s the queue. Texts come as base64, for they are whatever somebody sent.
const listLetters = `
Texts = fun(Properties) ->
  Headers = case element(4, Properties) of undefined -> []; H -> H end,
  Header = fun(Name) -> case lists:keyfind(Name, 1, Headers) of {_, _, V} when is_binary(V) -> V; _ -> <<>> end end,
  Reason = case Header(<<"x-reason">>) of <<>> -> Header(<<"x-first-death-reason">>); R -> R end,
  Id = case element(10, Properties) of undefined -> <<>>; I -> I end,
  [base64:encode(Id), base64:encode(Reason)]
end,
case rabbit_amqqueue:lookup(rabbit_misc:r(<<"%[1]s">>, queue, <<"%[2]s">>)) of
  {ok, Q} ->
    {ok, #{num_ready_messages := Ready}, _} = ra:consistent_query(amqqueue:get_pid(Q), fun(S) -> rabbit_fifo:overview(S) end),
    lists:foreach(fun(Position) ->
      case ra:aux_command(amqqueue:get_pid(Q), {peek, Position}) of
        {ok, {_, Stored}} ->
          Message = mc:prepare(read, mc:convert(mc_amqpl, Stored)),
          Content = rabbit_binary_parser:ensure_content_decoded(mc:protocol_state(Message)),
          io:format("letter ~s ~s~n", Texts(element(3, Content)));
        _ -> ok
      end
    end, lists:seq(1, Ready));
  {error, not_found} -> ok
end.`

// Letters implements Broker. What is in a consumer's hands is not read.
func (r Rabbitmqctl) Letters(ctx context.Context) ([]Letter, error) {
	out, err := r.Exec(ctx, "rabbitmqctl", "--silent", "eval", fmt.Sprintf(listLetters, r.VHost, contract.QueueDeadLetters))
	if err != nil {
		return nil, fmt.Errorf("read the dead letters: %w", err)
	}
	letters, err := parseLetters(out)
	if err != nil {
		return nil, fmt.Errorf("read the dead letters: %w", err)
	}
	return letters, nil
}

// parseLetters reads "letter ID REASON" lines, both in base64, and wants the answer's end, "ok", behind them.
func parseLetters(out []byte) ([]Letter, error) {
	var letters []Letter
	complete := false
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\r\n")
		complete = complete || line == "ok"
		rest, ok := strings.CutPrefix(line, "letter ")
		if !ok {
			continue
		}
		id, reason, _ := strings.Cut(rest, " ")
		rawID, err1 := base64.StdEncoding.DecodeString(id)
		rawReason, err2 := base64.StdEncoding.DecodeString(reason)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%q is no dead letter: %w", line, err)
		}
		letters = append(letters, Letter{ID: string(rawID), Reason: string(rawReason)})
	}
	if !complete {
		return nil, fmt.Errorf("it answered %.200q", out)
	}
	return letters, nil
}

// parseQueues reads "queue READY UNACKED NAME" lines, and wants the answer's end, "ok", behind them.
func parseQueues(out []byte) ([]Queue, error) {
	var queues []Queue
	complete := false
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		complete = complete || line == "ok"
		words := strings.SplitN(line, " ", 4)
		if words[0] != "queue" {
			continue
		}
		if len(words) != 4 {
			return nil, fmt.Errorf("%q is no queue", line)
		}
		ready, err1 := strconv.ParseInt(words[1], 10, 64)
		unacked, err2 := strconv.ParseInt(words[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%q is no queue: %w", line, err)
		}
		queues = append(queues, Queue{Name: words[3], Ready: ready, Unacked: unacked})
	}
	if !complete {
		return nil, fmt.Errorf("it answered %.200q", out)
	}
	return queues, nil
}
