import static java.nio.charset.StandardCharsets.UTF_8;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.networknt.schema.*;
import io.cloudevents.CloudEvent;
import io.cloudevents.http.HttpMessageFactory;
import io.cloudevents.jackson.JsonFormat;
import io.nats.client.*;
import io.nats.client.api.*;
import java.net.URLDecoder;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;

/**
 * Prints every Gemini event once: its type, its id, its job. Reads NATS JetStream.
 *
 * <p>The server remembers, under the name DURABLE, which events were acknowledged. An event is acknowledged after it
 * was handled, so one that was under way when this process died comes again. One that does not match the schema ends
 * the process and stays unacknowledged: the bridge publishes no such event.
 */
class ConsumeNats {
  static final String DURABLE = "example-java";
  public static void main(String[] args) throws Exception {
    var env = System.getenv();
    int limit = Integer.parseInt(env.getOrDefault("EVENTS", "0")); // how many to read; 0: endless
    String file = Files.readString(Path.of(env.getOrDefault("SCHEMA", "../../schemas/event.schema.json")));
    Schema schema = SchemaRegistry.withDefaultDialect(SpecificationVersion.DRAFT_2020_12).getSchema(file);
    // Ids of handled events. A real one is a table in your database, written in the transaction of what handle does.
    Set<String> seen = new HashSet<>();
    try (Connection nc = Nats.connect(env.getOrDefault("NATS_URL", Options.DEFAULT_URL))) {
      ConsumerContext consumer = nc.getStreamContext(env.getOrDefault("NATS_STREAM", "GEMINI")).createOrUpdateConsumer(
          ConsumerConfiguration.builder().durable(DURABLE).ackPolicy(AckPolicy.Explicit).build());
      for (int read = 0; limit == 0 || read < limit; read++) {
        Message msg = null;
        while (msg == null) msg = consumer.next(Duration.ofSeconds(5));
        CloudEvent event = parse(msg);
        var errors = schema.validate(new String(new JsonFormat().serialize(event), UTF_8), InputFormat.JSON,
            context -> context.executionConfig(config -> config.formatAssertionsEnabled(true)));
        if (!errors.isEmpty()) throw new IllegalArgumentException(errors.toString());
        if (!seen.contains(event.getId())) handle(event);
        seen.add(event.getId());
        msg.ackSync(Duration.ofSeconds(5));
      }
    }
  }

  /** Either content mode. In binary mode attributes are in "ce-" headers, percent-encoded, which the SDK leaves so. */
  static CloudEvent parse(Message msg) {
    Map<String, String> headers = new HashMap<>();
    msg.getHeaders().forEach((name, values) -> headers.put(name, !name.startsWith("ce-") ? values.get(0)
        : URLDecoder.decode(values.get(0).replace("+", "%2B"), UTF_8)));
    return HttpMessageFactory.createReader(headers, msg.getData()).toEvent();
  }

  static void handle(CloudEvent event) throws Exception {
    String job = new ObjectMapper().readTree(event.getData().toBytes()).path("job").asText("-");
    System.out.println(event.getType() + " " + event.getId() + " " + job);
  }
}
