# frozen_string_literal: true

# Receives webhooks signed by Standard Webhooks. Ruby 3.0 or newer with WEBrick.

require "json"
require "logger"
require "webrick"
require_relative "verify"

MAX_BODY_BYTES = 2 * 1024 * 1024
READ_SECONDS = 10
MAX_IDS = 10_000
MAX_WAITING = 1_000

LOG = Logger.new($stderr, progname: "webhooks")

# Your work goes here.
def handle(id, _event)
  LOG.info("processed #{id}")
end

# Takes each event once and has it handled in the background, in the order of arrival.
class Inbox
  def initialize
    @lock = Mutex.new
    @seen = {} # in the order of arrival
    @waiting = Thread::SizedQueue.new(MAX_WAITING)
    @processed = []
  end

  # False when there is no room: the sender must come again.
  def take(id, event)
    @lock.synchronize do
      if @seen.key?(id)
        LOG.info("repeated #{id}")
        return true
      end
      @waiting.push([id, event], true)
      @seen[id] = true
      @seen.shift if @seen.size > MAX_IDS
      true
    end
  rescue ThreadError # the queue is full
    false
  end

  def work
    loop do
      id, event = @waiting.pop
      begin
        handle(id, event)
      rescue StandardError => e
        LOG.error("failed #{id}: #{e.full_message(highlight: false)}")
      end
      @lock.synchronize do
        @processed << id
        @processed.shift if @processed.size > MAX_IDS
      end
    end
  end

  def processed
    @lock.synchronize { @processed.dup }
  end
end

# POST /webhooks
class Webhooks < WEBrick::HTTPServlet::AbstractServlet
  def initialize(server, verifier, inbox)
    super(server)
    @verifier = verifier
    @inbox = inbox
  end

  def do_POST(request, response)
    body = read(request)
    return answer(response, 413, "body too large") if body.nil?

    id = @verifier.verify(request.header.transform_values(&:first), body)
    taken = events_of(id, body).map { |event_id, event| @inbox.take(event_id, event) }
    return answer(response, 202) if taken.all?

    response["retry-after"] = "5"
    answer(response, 503, "busy")
  rescue Verifier::Refused => e
    LOG.warn("refused: #{e.message}")
    answer(response, 401, "invalid signature")
  rescue JSON::ParserError, KeyError, TypeError
    answer(response, 400, "not a JSON event, nor an array of events with ids")
  end

  private

  # The raw body; nil when it is larger than allowed.
  def read(request)
    return nil if request["content-length"].to_i > MAX_BODY_BYTES

    body = String.new(encoding: Encoding::BINARY)
    request.body do |part|
      body << part
      return nil if body.bytesize > MAX_BODY_BYTES
    end
    body
  end

  # What a verified body holds: one event with the message's id, or a batch with theirs.
  def events_of(id, body)
    content = JSON.parse(body.force_encoding(Encoding::UTF_8))
    return [[id, content]] unless content.is_a?(Array)

    content.map { |member| [Hash(member).fetch("id").to_str, member] }
  rescue NoMethodError # an id that is no text
    raise KeyError, "id"
  end

  def answer(response, status, text = "")
    response.status = status
    response["content-type"] = "text/plain"
    # What was not read of a body would be taken for the next request.
    response.keep_alive = false if status == 413
    response.body = text
  end
end

begin
  verifier = Verifier.new(ENV.fetch("WEBHOOK_SECRET", ""))
rescue ArgumentError => e
  abort("WEBHOOK_SECRET: #{e.message}, as the sender gave it to you")
end
inbox = Inbox.new
Thread.new { inbox.work }

server = WEBrick::HTTPServer.new(
  BindAddress: "127.0.0.1", Port: Integer(ENV.fetch("PORT", "8000")), RequestTimeout: READ_SECONDS,
  MaxClients: 100, AccessLog: [], Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN)
)
server.mount("/webhooks", Webhooks, verifier, inbox)
server.mount_proc("/processed") { |_, response| response.body = { processed: inbox.processed }.to_json }
server.mount_proc("/healthz") { |_, response| response.body = "ok" }
trap("INT") { server.shutdown }
trap("TERM") { server.shutdown }
LOG.info("listening on 127.0.0.1:#{server.config[:Port]}")
server.start
