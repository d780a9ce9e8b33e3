package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/fault"
)

// Broker is the broker by programs that run beside it, in its container: what is asked here no protocol of it answers. What is
// in a consumer's hands counts too, a message is read without being taken, and one is put back with every byte of its
// properties.
type Broker struct {
	Exec        Exec
	VHost       string
	Queues      []string // that must be empty, as far as they are declared
	DeadLetters string   // the queue whose messages are saved
}

// Exec runs a program beside a server, in its container. One that ended with another code than 0 is an error, with what it said. stdin may be nil.
type Exec func(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error

// launch has a script evaluated inside the broker, whose answers come as they are printed. erl_call asks in some milliseconds what
// rabbitmqctl starts an Erlang machine for, which takes most of a second; but not every image has one that passes answers on, and
// one that does not reach the broker ends with 1. Two clients must not have the same name at the same time.
const launch = `
if command -v stdbuf >/dev/null && erl_call 2>&1 | grep -q fetch_stdout; then
  printf '%s\n' "$0" | stdbuf -oL erl_call -h "snapshot$$" -sname "${RABBITMQ_NODENAME:-rabbit@localhost}" -fetch_stdout -e
  [ $? -eq 1 ] || exit 0
fi
exec rabbitmqctl --silent eval "$0"`

// The errands, the first five bytes of a file. What is to be written follows.
const (
	look  = "look "
	write = "write"
	end   = "end  "
)

// script is evaluated inside the broker. It is started before it is needed, and does several errands: each is a file that appears in
// its folder, in order. It answers on standard output and goes when it has written, when it is told to end, or after a minute
// without anything new. Of the dead letters it has one at a time in memory, and lets the broker take in a megabyte before the next:
// a few of some megabytes are otherwise more than the broker has room for.
//
// What begins with 131 is a list of all letters as one term, of the formats before 3.
//
// %s are the folder, the virtual host, the names of the queues that must be empty and of the dead letters'.
const script = `
Dir = "%s", VHost = <<"%s">>, Must = [%s], Dead = <<"%s">>,
Queue = fun(Name) -> rabbit_amqqueue:lookup(rabbit_misc:r(VHost, queue, Name)) end,
Count = fun(Q) ->
  case amqqueue:get_type(Q) of
    rabbit_quorum_queue ->
      {ok, #{num_ready_messages := R, num_checked_out := C}, _} =
        ra:consistent_query(amqqueue:get_pid(Q), fun(S) -> rabbit_fifo:overview(S) end),
      {R, C};
    _ ->
      I = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]),
      {proplists:get_value(messages_ready, I, 0), proplists:get_value(messages_unacknowledged, I, 0)}
  end
end,
Protocol = rabbit_framing_amqp_0_9_1,
Read = fun(Q, Position) ->
  {ok, {Header, Stored}} = ra:aux_command(amqqueue:get_pid(Q), {peek, Position}),
  Message = mc:prepare(read, mc:convert(mc_amqpl, Stored)),
  Content = rabbit_binary_generator:ensure_content_encoded(mc:protocol_state(Message), Protocol),
  Returned = case Header of #{acquired_count := N} -> N; #{delivery_count := N} -> N; _ -> 0 end,
  {mc:exchange(Stored), hd(mc:routing_keys(Stored)), Returned, element(4, Content), iolist_to_binary(lists:reverse(element(6, Content)))}
end,
Show = fun(Letter) ->
  io:put_chars([base64:encode(term_to_binary(Letter)), $\n]),
  erlang:garbage_collect()
end,
Look = fun() ->
  lists:foreach(fun(Name) ->
    case Queue(Name) of
      {ok, Q} -> {R, C} = Count(Q), io:format("queue ~b ~b ~ts~n", [R, C, Name]);
      {error, not_found} -> ok
    end
  end, Must),
  case Queue(Dead) of
    {ok, D} ->
      case Count(D) of
        {Ready, 0} -> io:format("letters ~b~n", [Ready]), [Show(Read(D, P)) || P <- lists:seq(1, Ready)];
        {_, Held} -> io:format("held ~b~n", [Held])
      end;
    {error, not_found} -> io:format("letters 0~n")
  end
end,
Await = fun Await(Q, N, Tries) when Tries > 0 ->
  case Count(Q) of
    {N, 0} -> ok;
    _ -> timer:sleep(10), Await(Q, N, Tries - 1)
  end
end,
Put = fun(Q, {Exchange, Key, Returned, Properties, Body}) ->
  Content = rabbit_binary_parser:ensure_content_decoded({content, 60, none, Properties, Protocol, [Body]}),
  {ok, Message} = mc_amqpl:message(rabbit_misc:r(VHost, exchange, Exchange), Key, Content),
  Counted = case Returned of 0 -> Message; _ -> mc:set_annotation(delivery_count, Returned, Message) end,
  ok = rabbit_fifo_client:untracked_enqueue([amqqueue:get_pid(Q)], mc:prepare(store, Counted)),
  byte_size(Body)
end,
PutAll = fun PutAll(F, Q, N, Bytes) when Bytes > 1000000 -> Await(Q, N, 1000), erlang:garbage_collect(), PutAll(F, Q, N, 0);
  PutAll(F, Q, N, Bytes) ->
    case file:read(F, 4) of
      {ok, <<131, _/binary>> = Begin} ->
        {ok, End} = file:read(F, 1 bsl 31),
        Letters = binary_to_term(<<Begin/binary, End/binary>>, [safe]),
        [Put(Q, L) || L <- Letters], Await(Q, length(Letters), 1000), length(Letters);
      {ok, <<Size:32>>} ->
        {ok, Letter} = file:read(F, Size),
        PutAll(F, Q, N + 1, Bytes + Put(Q, binary_to_term(Letter, [safe])));
      eof -> Await(Q, N, 1000), N
    end
end,
Write = fun(F) ->
  [case Queue(Name) of {ok, Q} -> rabbit_amqqueue:purge(Q); {error, not_found} -> ok end || Name <- [Dead | Must]],
  Written = case Queue(Dead) of
    {ok, D} -> PutAll(F, D, 0, 0);
    {error, not_found} -> 0
  end,
  io:format("written ~b~n", [Written])
end,
Loop = fun Loop(N, Idle) ->
  case file:open(Dir ++ "/" ++ integer_to_list(N), [read, raw, binary]) of
    {ok, F} ->
      {ok, Errand} = file:read(F, 5),
      case Errand of <<"look ">> -> Look(); <<"write">> -> Write(F); <<"end  ">> -> ok end,
      file:close(F),
      case Errand of <<"look ">> -> Loop(N + 1, 0); _ -> file:del_dir_r(Dir) end;
    {error, enoent} when Idle > 6000 -> file:del_dir_r(Dir);
    {error, enoent} -> timer:sleep(10), Loop(N, Idle + 1)
  end
end,
ok = file:make_dir(Dir),
io:format("ready~n"),
Loop(1, 0).`

// errands are what is asked of the broker, one after another.
type errands struct {
	broker  Broker
	dir     string
	sent    int
	running bool // it has said so, and has not written
	said    *bufio.Reader
	over    chan struct{} // closed when the script has ended
	err     error         // how, read when over is closed
	cancel  context.CancelFunc
}

// open starts the script; its first answer shows whether it runs.
func (b Broker) open(ctx context.Context) *errands {
	ctx, cancel := context.WithCancel(ctx)
	read, write := io.Pipe()
	e := &errands{
		broker: b, dir: "/tmp/platformctl-" + rand.Text(), said: bufio.NewReaderSize(read, 1<<16), over: make(chan struct{}), cancel: cancel,
	}
	var must []string
	for _, q := range b.Queues {
		must = append(must, `<<"`+q+`">>`)
	}
	go func() {
		defer close(e.over)
		e.err = b.Exec(ctx, nil, write, "sh", "-c", launch, fmt.Sprintf(script, e.dir, b.VHost, strings.Join(must, ", "), b.DeadLetters))
		if e.err == nil {
			e.err = errors.New("the script ended before its time")
		}
		_ = write.CloseWithError(e.err) // always nil
	}()
	return e
}

// line is the next line that the script prints.
func (e *errands) line() (string, error) {
	line, err := e.said.ReadString('\n')
	if err != nil && line != "" {
		err = fmt.Errorf("%w, saying %.2000s", err, line)
	}
	if err != nil {
		return "", fmt.Errorf("ask the broker: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// send gives the script an errand. The file gets its name when it is whole.
func (e *errands) send(ctx context.Context, errand []byte) error {
	e.sent++
	file := fmt.Sprintf("%s/%d", e.dir, e.sent)
	err := e.broker.Exec(ctx, bytes.NewReader(errand), io.Discard, "sh", "-c", `cat >"$0.new" && mv "$0.new" "$0"`, file)
	if err != nil {
		return fmt.Errorf("ask the broker: %w", err)
	}
	return nil
}

// ready returns when the script runs.
func (e *errands) ready() error {
	for !e.running {
		line, err := e.line()
		if err != nil {
			return err
		}
		e.running = line == "ready"
	}
	return nil
}

// found is what is at the broker.
type found struct {
	waiting int    // messages, in queues and in consumers' hands
	where   string // the first queue that has any
	number  int    // of dead letters
	letters []byte // themselves, each as an Erlang term behind its length in four bytes; nil where there are none
}

// look counts the messages and reads the dead letters, which stay where they are.
func (e *errands) look(ctx context.Context) (f found, err error) {
	if err := e.ready(); err != nil {
		return f, err
	}
	if err := e.send(ctx, []byte(look)); err != nil {
		return f, err
	}
	for {
		line, err := e.line()
		if err != nil {
			return f, err
		}
		words := strings.SplitN(line, " ", 4)
		switch {
		case words[0] == "queue" && len(words) == 4:
			ready, err1 := strconv.Atoi(words[1])
			unacked, err2 := strconv.Atoi(words[2])
			if err := errors.Join(err1, err2); err != nil {
				return f, fmt.Errorf("ask the broker: %q is no queue: %w", line, err)
			}
			if f.waiting += ready + unacked; ready+unacked > 0 && f.where == "" {
				f.where = words[3]
			}
		case words[0] == "held":
			return f, fault.New(fault.CodeFailed, "stop what consumes "+e.broker.DeadLetters,
				"somebody has %s dead letters in hand, which can not be saved", words[1])
		case words[0] == "letters" && len(words) == 2:
			if f.number, err = strconv.Atoi(words[1]); err != nil {
				return f, fmt.Errorf("ask the broker: %q is no count: %w", line, err)
			}
			for range f.number {
				text, err := e.line()
				if err != nil {
					return f, err
				}
				letter, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return f, fmt.Errorf("ask the broker: read the dead letters: %w", err)
				}
				f.letters = append(binary.BigEndian.AppendUint32(f.letters, uint32(len(letter))), letter...)
			}
			return f, nil
		}
	}
}

// write empties all queues and puts the dead letters where they were. When it returns they are on the broker's disk. It is the last
// errand.
func (e *errands) write(ctx context.Context, letters []byte, number int) error {
	if err := e.ready(); err != nil {
		return err
	}
	if err := e.send(ctx, append([]byte(write), letters...)); err != nil {
		return err
	}
	for {
		line, err := e.line()
		if err != nil {
			return err
		}
		if count, ok := strings.CutPrefix(line, "written "); ok {
			if count != strconv.Itoa(number) {
				return fmt.Errorf("ask the broker: %s dead letters were written, not %d", count, number)
			}
			e.running = false
			return nil
		}
	}
}

// close ends the script. One that has not begun yet, has written, or gives no answer, goes by itself.
func (e *errands) close() error {
	defer e.cancel()
	select {
	case <-e.over:
		return nil // whoever waited for an answer has its error
	default:
	}
	if !e.running {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	return e.send(ctx, []byte(end))
}

// goodbye is how long the script's end is worth waiting for.
const goodbye = 5 * time.Second
