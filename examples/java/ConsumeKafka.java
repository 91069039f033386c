import static java.nio.charset.StandardCharsets.UTF_8;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.networknt.schema.*;
import io.cloudevents.CloudEvent;
import io.cloudevents.jackson.JsonFormat;
import io.cloudevents.kafka.CloudEventDeserializer;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Prints every Gemini event once: its type, its id, its job. Reads Kafka.
 *
 * <p>The broker remembers, under the name GROUP, the offsets that were committed. An offset is committed after its
 * event was handled, so one that was under way when this process died comes again. One that does not match the schema
 * ends the process and stays uncommitted: the bridge publishes no such event.
 */
class ConsumeKafka {
  static final String GROUP = "example-java";

  public static void main(String[] args) throws Exception {
    var env = System.getenv();
    int limit = Integer.parseInt(env.getOrDefault("EVENTS", "0")); // how many to read; 0: endless
    String file = Files.readString(Path.of(env.getOrDefault("SCHEMA", "../../schemas/event.schema.json")));
    Schema schema = SchemaRegistry.withDefaultDialect(SpecificationVersion.DRAFT_2020_12).getSchema(file);
    // Ids of handled events. A real one is a table in your database, written in the transaction of what handle does.
    Set<String> seen = new HashSet<>();
    Map<String, Object> settings = Map.of("bootstrap.servers", env.getOrDefault("KAFKA_BROKERS", "127.0.0.1:9092"),
        "group.id", GROUP, "enable.auto.commit", false, "auto.offset.reset", "earliest");
    try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new CloudEventDeserializer())) {
      consumer.subscribe(List.of(env.getOrDefault("KAFKA_TOPIC", "gemini.events")));
      for (int read = 0; limit == 0 || read < limit; ) {
        for (var message : consumer.poll(Duration.ofSeconds(5))) {
          CloudEvent event = message.value(); // of either content mode
          var errors = schema.validate(new String(new JsonFormat().serialize(event), UTF_8), InputFormat.JSON,
              context -> context.executionConfig(config -> config.formatAssertionsEnabled(true)));
          if (!errors.isEmpty()) throw new IllegalArgumentException(errors.toString());
          if (!seen.contains(event.getId())) handle(event);
          seen.add(event.getId());
          consumer.commitSync(Map.of(new TopicPartition(message.topic(), message.partition()),
              new OffsetAndMetadata(message.offset() + 1)));
          if (++read == limit) break;
        }
      }
    }
  }

  static void handle(CloudEvent event) throws Exception {
    String job = new ObjectMapper().readTree(event.getData().toBytes()).path("job").asText("-");
    System.out.println(event.getType() + " " + event.getId() + " " + job);
  }
}
