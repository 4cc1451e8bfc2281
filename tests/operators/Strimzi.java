import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.cfg.CoercionAction;
import com.fasterxml.jackson.databind.cfg.CoercionInputShape;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.type.LogicalType;
import io.strimzi.api.kafka.model.topic.KafkaTopic;
import io.strimzi.api.kafka.model.user.KafkaUser;
import io.strimzi.crdgenerator.annotations.Crd;
import io.strimzi.crdgenerator.annotations.Maximum;
import io.strimzi.crdgenerator.annotations.Minimum;
import java.beans.Introspector;
import java.beans.PropertyDescriptor;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/**
 * Reads resources of Strimzi, one a line of JSON, and prints for each a line of JSON: what is wrong with it, a list of sentences.
 *
 * <p>Strimzi generates its CRDs from the classes that its operators read resources with; those are what is used here: their fields and types,
 * the versions that they state, what they require, and their bounds. They keep a field that they do not know, and take a word that they do not
 * know for none: so what was read is compared with what was said.
 */
class Strimzi {
    static final Map<String, Class<?>> KINDS = Map.of("KafkaTopic", KafkaTopic.class, "KafkaUser", KafkaUser.class);
    static final JsonMapper MAPPER = JsonMapper.builder()
        .disable(MapperFeature.ALLOW_COERCION_OF_SCALARS) // "12" is no number
        .withCoercionConfig(LogicalType.Textual, texts -> { // nor is 12 a text
            for (CoercionInputShape shape : List.of(CoercionInputShape.Integer, CoercionInputShape.Float, CoercionInputShape.Boolean))
                texts.setCoercion(shape, CoercionAction.Fail);
        })
        .build();

    public static void main(String[] words) throws Exception {
        for (String line : new BufferedReader(new InputStreamReader(System.in)).lines().toList())
            System.out.println(MAPPER.writeValueAsString(problems(MAPPER.readTree(line))));
    }

    static List<String> problems(JsonNode said) throws Exception {
        Class<?> kind = KINDS.get(said.path("kind").asText());
        if (kind == null) return List.of("kind: there is no such kind: " + said.path("kind"));
        List<String> problems = new ArrayList<>();
        Crd.Spec spec = kind.getAnnotation(Crd.class).spec();
        boolean known = Arrays.stream(spec.versions())
            .anyMatch(version -> version.served() && said.path("apiVersion").asText().equals(spec.group() + "/" + version.name()));
        if (!known) problems.add("apiVersion: there is no such version: " + said.path("apiVersion"));
        if (!said.has("spec")) problems.add("spec: is required"); // stated by an annotation that Maven Central does not have
        try {
            compare(MAPPER.treeToValue(said, kind), said, "", problems);
        } catch (JsonProcessingException error) {
            problems.add(error.getOriginalMessage());
        }
        return problems;
    }

    /** What of an object is not as it was said, or not as its class wants it. */
    static void compare(Object read, JsonNode said, String path, List<String> problems) throws Exception {
        if (read == null) {
            problems.add(path + ": there is no such value: " + said);
        } else if (read instanceof List<?> list) {
            for (int number = 0; number < list.size(); number++)
                compare(list.get(number), said.get(number), path + "[" + number + "]", problems);
        } else if (!(read instanceof Map) && !read.getClass().isEnum() && !read.getClass().getName().startsWith("java.")) {
            for (PropertyDescriptor property : Introspector.getBeanInfo(read.getClass(), Object.class).getPropertyDescriptors()) {
                Method getter = property.getReadMethod();
                String at = path + "." + property.getName();
                if (getter == null) continue;
                if (property.getName().equals("additionalProperties"))
                    for (Object name : ((Map<?, ?>) getter.invoke(read)).keySet()) problems.add(path + "." + name + ": there is no such field");
                else if (said.has(property.getName()))
                    compareField(getter, getter.invoke(read), said.get(property.getName()), at, problems);
                else if (isRequired(getter)) problems.add(at + ": is required");
            }
        }
    }

    static void compareField(Method getter, Object read, JsonNode said, String path, List<String> problems) throws Exception {
        if (read instanceof Number number) {
            Minimum minimum = getter.getAnnotation(Minimum.class);
            Maximum maximum = getter.getAnnotation(Maximum.class);
            if (minimum != null && number.longValue() < minimum.value()) problems.add(path + ": less than " + minimum.value());
            if (maximum != null && number.longValue() > maximum.value()) problems.add(path + ": more than " + maximum.value());
        }
        compare(read, said, path, problems);
    }

    static boolean isRequired(Method getter) {
        JsonProperty stated = getter.getAnnotation(JsonProperty.class);
        return stated != null && stated.required();
    }
}
